#!/usr/bin/env bash
# Lints and renders the Helm chart with the real helm, holds what comes out against the schemas of Kubernetes, and makes sure that bad
# values are refused with a message that says why. deploy/setup.sh --tests brings helm and kubernetes-validate.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache="${TAILWATER_CACHE:-$HOME/.cache/tailwater}"
helm="$cache/bin/helm"
validate="$cache/kubernetes-validate/bin/kubernetes-validate"
chart="$root/helm/tailwater"
kubernetes=1.31.0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

die() { printf 'chart: %s\n' "$*" >&2; exit 1; }
[ -x "$helm" ] || die "helm is not at $helm: run deploy/setup.sh --tests"
# Helm keeps repositories and plugins of its own; none of them belong here.
export HELM_CACHE_HOME="$work/helm-cache" HELM_CONFIG_HOME="$work/helm-config" HELM_DATA_HOME="$work/helm-data"

good=(--set-file "config=$chart/ci/config.yaml" --set-file "transforms.ltv\.js=$root/deploy/examples/winback/transforms/ltv.js")
render() { "$helm" template check "$chart" --kube-version "$kubernetes" "$@"; }

# expect FILE NUMBER PATTERN: the rendered file has that many lines with the pattern.
expect() {
  local found
  found=$(grep -cE -- "$3" "$1" || true)
  [ "$found" -eq "$2" ] || die "$(basename "$1"): $found lines match '$3', $2 were expected"
}

# refused WORDS ARGUMENTS…: rendering fails, and the message has the words.
refusals=0
refused() {
  local words=$1 out
  shift
  if out=$(render "$@" 2>&1); then die "values that must be refused were accepted: $*"; fi
  grep -qF -- "$words" <<<"$out" || die "values were refused ($*), but the message does not say '$words': $out"
  refusals=$((refusals + 1))
}

for values in "$chart"/ci/*-values.yaml; do
  "$helm" lint --quiet --strict "$chart" "${good[@]}" -f "$values" --kube-version "$kubernetes" >"$work/lint" 2>&1 || { cat "$work/lint" >&2; die "helm lint fails with $values"; }
  name=$(basename "$values" -values.yaml)
  render "${good[@]}" -f "$values" >"$work/$name.yaml"
done

for name in roles:4 single:1; do
  file="$work/${name%:*}.yaml" pods=${name#*:}
  expect "$file" "$pods" '^kind: Deployment$'
  expect "$file" "$pods" '^kind: PodDisruptionBudget$'
  expect "$file" "$pods" 'runAsNonRoot: true'
  expect "$file" "$pods" 'readOnlyRootFilesystem: true'
  expect "$file" "$pods" 'allowPrivilegeEscalation: false'
  expect "$file" "$pods" 'drop: \[ALL\]'
  expect "$file" "$pods" 'type: RuntimeDefault'
  expect "$file" "$((2 * pods))" 'path: /livez'
  expect "$file" "$pods" 'path: /readyz'
  expect "$file" "$pods" 'path: transforms/ltv.js'
  # A secret is referred to in each pod, and nothing is a Secret itself.
  expect "$file" "$pods" 'secretKeyRef:'
  expect "$file" 0 '^kind: Secret$'
done
for role in source resolve route send; do expect "$work/roles.yaml" 1 "^            - $role\$"; done
expect "$work/roles.yaml" 1 '^kind: ServiceMonitor$'
expect "$work/single.yaml" 0 '^kind: ServiceMonitor$'
expect "$work/single.yaml" 0 '--roles'

# The transform reaches the pod as it is.
"$helm" template check "$chart" --kube-version "$kubernetes" "${good[@]}" -f "$chart/ci/single-values.yaml" -s templates/configmap.yaml >"$work/configmap.yaml"
sed -n '/^  transform\.ltv\.js: |/,$p' "$work/configmap.yaml" | sed -e 1d -e 's/^    //' -e 's/^ *$//' | cmp -s - "$root/deploy/examples/winback/transforms/ltv.js" ||
  die "transforms/ltv.js is another one in the ConfigMap"

if [ -x "$validate" ]; then
  for file in "$work/roles.yaml" "$work/single.yaml"; do
    "$validate" --strict --no-warn -k "${kubernetes%.*}" "$file" >"$work/validate" 2>&1 || { grep -v '^INFO' "$work/validate" >&2; die "$(basename "$file") does not fit Kubernetes ${kubernetes%.*}"; }
  done
else
  printf 'chart: SKIPPED: kubernetes-validate is not there, so the manifests were not held against the schemas of Kubernetes\n'
fi

config_with() { sed "$1" "$chart/ci/config.yaml" >"$work/config.yaml"; }
transform=(--set-file "transforms.ltv\.js=$root/deploy/examples/winback/transforms/ltv.js")

refused '/config' "${transform[@]}"
refused '/mode' "${good[@]}" --set mode=cluster
refused '/roles/resolve/replicas' "${good[@]}" --set roles.resolve.replicas=2
refused '/single/replicas' "${good[@]}" --set mode=single --set single.replicas=2
refused '/roles/send/replicas' "${good[@]}" --set roles.send.replicas=-1
refused 'replica_count' "${good[@]}" --set replica_count=3
refused '/image/digest' "${good[@]}" --set image.digest=latest
refused '/image/repository' "${good[@]}" --set image.repository=
refused '/env/0/name' "${good[@]}" --set 'env[0].name=KLAVIYO_API_KEY' --set 'env[0].value=pk_plain'
refused '/env/0/name' "${good[@]}" --set 'env[0].name=TAILWATER_STATE_DIR' --set 'env[0].value=/data'
refused '/secrets/env/0' "${good[@]}" --set 'secrets.env[0].name=KLAVIYO_API_KEY' --set 'secrets.env[0].value=pk_plain'
refused '/state/type' "${good[@]}" --set state.type=hostPath
refused '/terminationGracePeriodSeconds' "${good[@]}" --set terminationGracePeriodSeconds=5
refused "propertyName 'ltv/js'" "${good[@]}" --set-file "transforms.ltv/js=$chart/ci/config.yaml"
refused 'which is not among the transforms' --set-file "config=$chart/ci/config.yaml"
printf 'a: [1\n' >"$work/broken.yaml"
refused 'no valid YAML' "${transform[@]}" --set-file "config=$work/broken.yaml"
config_with '/^admin/d'
refused 'the probes could not reach it' "${transform[@]}" --set-file "config=$work/config.yaml"
config_with 's|^state_dir.*|state_dir: ./state|'
refused 'state volume' "${transform[@]}" --set-file "config=$work/config.yaml"

printf 'chart: both modes render and fit Kubernetes %s, %d kinds of bad values are refused\n' "${kubernetes%.*}" "$refusals"
