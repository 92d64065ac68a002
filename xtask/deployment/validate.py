"""Validates Kubernetes manifests: validate.py VERSION FILE…

As the command kubernetes-validate does, only that a kind of which there is no schema is wrong, too: it is mistyped.
"""

import sys

import kubernetes_validate
import yaml

version, *files = sys.argv[1:]
wrong = 0
for file in files:
    with open(file, encoding="utf-8") as text:
        for resource in yaml.safe_load_all(text):
            try:
                kubernetes_validate.validate(resource, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                print(f"{file}: {'.'.join(map(str, error.path))}: {error.message}", file=sys.stderr)
                wrong += 1
            except kubernetes_validate.SchemaNotFoundError as error:
                print(f"{file}: {error.message}", file=sys.stderr)
                wrong += 1
sys.exit(1 if wrong or not files else 0)
