{{- define "tailwater.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Room is left for the role at the end: names of pods end at 63 characters. */}}
{{- define "tailwater.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "tailwater.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "tailwater.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tailwater.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tailwater.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tailwater.labels" -}}
{{ include "tailwater.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "tailwater.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tailwater.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "tailwater.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The Deployments to make: role → its values. */}}
{{- define "tailwater.roles" -}}
{{- if eq .Values.mode "single" -}}
{{- dict "all" .Values.single | toYaml -}}
{{- else -}}
{{- .Values.roles | toYaml -}}
{{- end -}}
{{- end -}}

{{/*
What the schema cannot see, because the configuration is text to it: that it is YAML, that the probes can reach the process, that the
state lands on the volume, and that the transforms it names are there. The binary checks everything else when it starts.
*/}}
{{- define "tailwater.checkConfig" -}}
{{- $config := fromYaml .Values.config -}}
{{- if hasKey $config "Error" -}}
{{- fail (printf "config is no valid YAML: %s" $config.Error) -}}
{{- end -}}
{{- $listen := dig "admin" "listen" "127.0.0.1:9644" $config -}}
{{- if not (or (contains "${env:TAILWATER_ADMIN_LISTEN" $listen) (eq "0.0.0.0:9644" $listen) (eq "[::]:9644" $listen)) -}}
{{- fail (printf "config: admin.listen is %q, and the probes could not reach it; write admin: { listen: \"${env:TAILWATER_ADMIN_LISTEN:-127.0.0.1:9644}\" }" $listen) -}}
{{- end -}}
{{- $state := dig "state_dir" "" $config -}}
{{- if not (or (contains "${env:TAILWATER_STATE_DIR" $state) (hasPrefix "/var/lib/tailwater" $state)) -}}
{{- fail (printf "config: state_dir is %q, and nothing else than the state volume can be written; write state_dir: ${env:TAILWATER_STATE_DIR:-./state}" $state) -}}
{{- end -}}
{{- range $name, $destination := (get $config "destinations" | default dict) -}}
{{- range (get $destination "routes" | default list) -}}
{{- $file := get . "transform" | default "" -}}
{{- if and $file (not (hasKey $.Values.transforms (trimPrefix "transforms/" (trimPrefix "./" $file)))) -}}
{{- fail (printf "config: destinations.%s names the transform %s, which is not among the transforms; give it with --set-file transforms.%s=%s" $name $file (trimPrefix "transforms/" $file | replace "." "\\.") $file) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
