{{/* The image that every part runs. */}}
{{- define "image-cri-shim.image" -}}
{{- $image := .Values.image -}}
{{- if and $image.digest $image.tag -}}
{{ $image.repository }}:{{ $image.tag }}@{{ $image.digest }}
{{- else if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Labels of an object. Arguments: root, name (of the part). */}}
{{- define "image-cri-shim.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/part-of: image-cri-shim
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/*
Labels of Pods: what is selected by, and the mark that keeps our own image away from the webhook, which would wait for
itself, and away from the cache, which may not be there yet. Arguments: name, labels (more of them).
*/}}
{{- define "image-cri-shim.podLabels" -}}
{{- $own := dict "app.kubernetes.io/name" .name "image-cri-shim/rewrite" "false" -}}
{{- merge $own .labels | toYaml -}}
{{- end }}

{{/* Where a Pod may run, and what may be moved for it. Arguments: the part's values. */}}
{{- define "image-cri-shim.scheduling" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Image, pull policy of a container. */}}
{{- define "image-cri-shim.containerImage" -}}
image: {{ include "image-cri-shim.image" . | quote }}
{{- with .Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
{{- end }}

{{- define "image-cri-shim.imagePullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The ConfigMap with the config. Arguments: root, name, namespace. */}}
{{- define "image-cri-shim.configMap" -}}
{{- $config := .root.Values.config -}}
{{- range $field, $section := dict "metricsAddress" $config "nodeCache.metricsAddress" ($config.nodeCache | default dict) -}}
{{- if kindIs "bool" $section.metricsAddress -}}
{{- fail (printf "config.%s: write \"off\" in quotes; without them Helm reads it as false" $field) -}}
{{- end -}}
{{- end -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- include "image-cri-shim.labels" . | nindent 4 }}
data:
  image-cri-shim.yaml: |
    {{- toYaml .root.Values.config | nindent 4 }}
{{- end }}

{{/* Whether Secrets are made of what the values hold. */}}
{{- define "image-cri-shim.environmentSecret" -}}
{{- $environment := .root.Values.credentials.environment -}}
{{- if and $environment.existingSecret $environment.values -}}
{{- fail "credentials.environment: write either existingSecret or values, not both" -}}
{{- end -}}
{{- if $environment.existingSecret -}}
{{ $environment.existingSecret }}
{{- else if $environment.values -}}
{{ .name }}-environment
{{- end -}}
{{- end }}

{{- define "image-cri-shim.dockerConfigSecret" -}}
{{- $docker := .root.Values.credentials.dockerConfig -}}
{{- if and $docker.existingSecret $docker.registries -}}
{{- fail "credentials.dockerConfig: write either existingSecret or registries, not both" -}}
{{- end -}}
{{- if $docker.existingSecret -}}
{{ $docker.existingSecret }}
{{- else if $docker.registries -}}
{{ .name }}-docker-config
{{- end -}}
{{- end }}

{{/* The Secrets that the chart makes. Arguments: root, name, namespace. */}}
{{- define "image-cri-shim.secrets" -}}
{{- with .root.Values.credentials.environment.values }}
---
apiVersion: v1
kind: Secret
metadata:
  name: {{ $.name }}-environment
  namespace: {{ $.namespace }}
  labels:
    {{- include "image-cri-shim.labels" $ | nindent 4 }}
type: Opaque
data:
  {{- range $name, $value := . }}
  {{ $name }}: {{ $value | b64enc }}
  {{- end }}
{{- end }}
{{- with .root.Values.credentials.dockerConfig.registries }}
{{- $auths := dict }}
{{- range $host, $login := . }}
{{- $auth := printf "%s:%s" $login.username $login.password | b64enc }}
{{- $_ := set $auths $host (dict "username" $login.username "password" $login.password "auth" $auth) }}
{{- end }}
---
apiVersion: v1
kind: Secret
metadata:
  name: {{ $.name }}-docker-config
  namespace: {{ $.namespace }}
  labels:
    {{- include "image-cri-shim.labels" $ | nindent 4 }}
type: kubernetes.io/dockerconfigjson
data:
  .dockerconfigjson: {{ dict "auths" $auths | toJson | b64enc }}
{{- end }}
{{- end }}

{{/* Variables for ${NAME} in the config. Arguments: root, name. */}}
{{- define "image-cri-shim.envFrom" -}}
{{- with include "image-cri-shim.environmentSecret" . }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end }}

{{/*
Annotations of Pods. The checksum restarts them when variables change: a process does not see that by itself. What the
config says is followed without a restart. Arguments: root, annotations (more of them).
*/}}
{{- define "image-cri-shim.podAnnotations" -}}
{{- $own := dict -}}
{{- with .root.Values.credentials.environment.values -}}
{{- $_ := set $own "image-cri-shim/checksum-of-variables" (. | toJson | sha256sum) -}}
{{- end -}}
{{- with merge $own .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where credentials and authorities stand. Arguments: root, name, part (its values). */}}
{{- define "image-cri-shim.volumeMounts" -}}
{{- if include "image-cri-shim.dockerConfigSecret" . }}
- name: docker-config
  mountPath: /etc/image-cri-shim/auth
  readOnly: true
{{- end }}
{{- if .root.Values.certificateAuthorities.existingConfigMap }}
- name: certificate-authorities
  mountPath: /etc/image-cri-shim/ca
  readOnly: true
{{- end }}
{{- with .part.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "image-cri-shim.volumes" -}}
{{- with include "image-cri-shim.dockerConfigSecret" . }}
- name: docker-config
  secret:
    secretName: {{ . }}
    # 0440 in octal, which YAML 1.1 and 1.2 write differently.
    defaultMode: 288
    items:
      - key: .dockerconfigjson
        path: config.json
{{- end }}
{{- with .root.Values.certificateAuthorities.existingConfigMap }}
- name: certificate-authorities
  configMap:
    name: {{ . }}
{{- end }}
{{- with .part.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
Leave for Pods of a priority of Kubernetes' own. Some clusters (GKE) let such Pods start only in namespaces with a quota for
that priority. Where it is not asked for, it changes nothing: nobody has that many Pods, and no other Pods count. Arguments:
root, name (of the part), namespace, values (the part's).
*/}}
{{- define "image-cri-shim.criticalPods" -}}
{{- if hasPrefix "system-" (.values.priorityClassName | default "") }}
apiVersion: v1
kind: ResourceQuota
metadata:
  name: {{ .name }}
  namespace: {{ .namespace }}
  labels:
    {{- include "image-cri-shim.labels" (dict "root" .root "name" .name) | nindent 4 }}
spec:
  hard:
    pods: "1000000"
  scopeSelector:
    matchExpressions:
      - scopeName: PriorityClass
        operator: In
        values: [{{ .values.priorityClassName }}]
{{- end }}
{{- end }}
