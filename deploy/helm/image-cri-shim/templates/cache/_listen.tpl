{{/* The two parts of an address, `127.0.0.1:7439` or `[::1]:7439`, as YAML. Arguments: address, field. */}}
{{- define "image-cri-shim.address" -}}
{{- if not (regexMatch "^(\\[[0-9A-Fa-f:.]+\\]|[0-9.]+):[0-9]+$" (toString .address)) -}}
{{- fail (printf "config.%s: %v is no address; write it as 127.0.0.1:7439 or [::1]:7439" .field .address) -}}
{{- end -}}
ip: {{ regexReplaceAll ":[0-9]+$" .address "" | trimAll "[]" | quote }}
port: {{ regexFind "[0-9]+$" .address }}
{{- end }}

{{/* Where the cache listens and stores, by the config's section `nodeCache`, as YAML. */}}
{{- define "image-cri-shim.nodeCache" -}}
{{- $section := .Values.config.nodeCache | default dict -}}
{{- $listen := $section.listen | default (list "127.0.0.1:7439") -}}
{{- if not (kindIs "slice" $listen) }}{{ $listen = list $listen }}{{ end -}}
{{- $metrics := $section.metricsAddress | default "127.0.0.1:7442" -}}
dir: {{ $section.dir | default "/var/lib/image-cri-shim/cache" | quote }}
scheme: {{ if $section.tls }}HTTPS{{ else }}HTTP{{ end }}
images:
  {{- include "image-cri-shim.address" (dict "address" (first $listen) "field" "nodeCache.listen") | nindent 2 }}
{{- if ne (toString $metrics) "off" }}
metrics:
  {{- include "image-cri-shim.address" (dict "address" $metrics "field" "nodeCache.metricsAddress") | nindent 2 }}
{{- end }}
{{- end }}

{{/* A port of the node. Arguments: name, address. */}}
{{- define "image-cri-shim.hostPort" -}}
- name: {{ .name }}
  containerPort: {{ .address.port }}
  hostPort: {{ .address.port }}
  {{- if not (has .address.ip (list "0.0.0.0" "::")) }}
  hostIP: {{ .address.ip | quote }}
  {{- end }}
{{- end }}

{{/* What kubelet asks, from the node's own network. */}}
{{- define "image-cri-shim.cacheProbe" -}}
{{- $address := .images.ip -}}
{{- if eq $address "0.0.0.0" }}{{ $address = "127.0.0.1" }}{{ else if eq $address "::" }}{{ $address = "::1" }}{{ end -}}
httpGet:
  host: {{ $address | quote }}
  path: /v2/
  port: images
  {{- if eq .scheme "HTTPS" }}
  scheme: HTTPS
  {{- end }}
{{- end }}
