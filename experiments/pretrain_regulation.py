"""Pre-train what is known of regulation: the weights behind ``tl.infer_grn(mode="zero_shot")``.

Command: ``python experiments/pretrain_regulation.py`` (``--smoke``: toy data, nothing is kept)
Cost:    one minute on one core, 1 GB
Expect:  ``graphfm/weights/regulation.safetensors``

Learns from the networks of four of BEELINE's cell types and from curated tables, all of them; Table 3 learns anew
without the cell type that it tests.
"""

import argparse
from pathlib import Path

import _grn_zero_shot as zero_shot

import graphfm
from graphfm import datasets, tl
from graphfm.models.knowledge import SHIPPED, KnowledgeConfig

WEIGHTS = Path(graphfm.__file__).parent / "weights" / SHIPPED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="toy data, nothing is kept")
    if parser.parse_args().smoke:
        toys = {f"toy{seed}": datasets.toy(num_cells=300, num_genes=200, seed=seed) for seed in range(2)}
        for toy in toys.values():
            toy.uns["grn_truth"] = {"planted": toy.uns["toy_truth"]["grn"]}
            toy.uns["tfs"] = toy.var_names[toy.var["is_tf"]].tolist()
        tl.pretrain_grn(toys, config=KnowledgeConfig(size=4, networks=("planted",), steps=3))
        print("smoke: ok")
        return
    zero_shot.learn().save_pretrained(WEIGHTS)
    print(f"{WEIGHTS}: {WEIGHTS.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
