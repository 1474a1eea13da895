use proptest::prelude::*;

use super::*;

/// `LINE object: path = image` for every image, `… ? image` for what may be one, `… ~ text` for a placeholder,
/// `… ! message` for every problem.
fn found(text: &str) -> Vec<String> {
    let Found {
        images,
        mentioned,
        placeholders,
        problems,
        broken,
    } = images(text);
    let image = |i: &Image| {
        let Image {
            image,
            place,
            retain,
        } = i;
        let kept = if *retain { " (kept)" } else { "" };
        format!("{} {place} = {image}{kept}", place.position.line)
    };
    let problem = |p: &Problem| {
        let Problem { place, message } = p;
        format!("{} {place} ! {message}", place.position.line)
    };
    let mention = |i: &Image| image(i).replace(" = ", " ? ");
    let placeholder = |p: &Placeholder| {
        let Placeholder { written, place } = p;
        format!("{} {place} ~ {written}", place.position.line)
    };
    let images = images.iter().map(image);
    let mentioned = mentioned.iter().map(mention);
    let placeholders = placeholders.iter().map(placeholder);
    let problems = problems.iter().chain(&broken).map(problem);
    let all = images.chain(mentioned).chain(placeholders).chain(problems);
    all.collect()
}

const HELM: &str = "\
---
# Source: shop/templates/secret.yaml
apiVersion: v1
kind: Secret
metadata:
  name: shop
stringData:
  image: hunter2
---
# Source: shop/templates/deployment.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  annotations:
    image: not-this
spec:
  selector:
    matchLabels: {image: nor-this}
  template:
    metadata:
      labels: {image: nor-that}
    spec:
      initContainers:
        - name: migrate
          image: \"registry.example.com/shop/migrate:1.2@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"
      containers:
        - name: web
          image: nginx:1.27
          env:
            - {name: IMAGE, value: nobody/looks:here}
        - name: sidecar
          image: docker.io/library/nginx:1.27
        - image: busybox
      ephemeralContainers:
        - name: debug
          image: ''
      volumes:
        - name: model
          image:
            reference: quay.io/models/llm:7b
            pullPolicy: IfNotPresent
---
# Source: shop/templates/cronjob.yaml
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: '0 3 * * *'
  jobTemplate:
    spec:
      template:
        spec:
          containers:
            - {name: backup, image: ghcr.io/org/backup:v3, args: [--image, x]}
          restartPolicy: Never
---
";

#[test]
fn what_helm_prints() {
    assert_eq!(
        found(HELM),
        [
            "26 Deployment/web: spec.template.spec.initContainers[migrate].image = registry.example.com/shop/migrate:1.2@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "29 Deployment/web: spec.template.spec.containers[web].image = nginx:1.27",
            "34 Deployment/web: spec.template.spec.containers[2].image = busybox",
            "41 Deployment/web: spec.template.spec.volumes[model].image.reference = quay.io/models/llm:7b",
            "55 CronJob/nightly: spec.jobTemplate.spec.template.spec.containers[backup].image = ghcr.io/org/backup:v3",
            "31 Deployment/web: spec.template.spec.containers[web].env[IMAGE].value ? nobody/looks:here",
        ]
    );
}

#[test]
fn custom_resources() {
    let digest = "b".repeat(64);
    let table: &[(&str, &[&str])] = &[
        ("image: quay.io/a/b:1", &["image = quay.io/a/b:1"]),
        ("image: {repository: a/b, tag: 1.10}", &["image = a/b:1.10"]),
        (
            "image: {registry: quay.io/, repository: a/b, tag: x, digest: 'sha256:D'}",
            &["image = quay.io/a/b:x@sha256:D"],
        ),
        (
            "image: {repository: a/b, tag: '', digest: 'sha256:D'}",
            &["image = a/b@sha256:D"],
        ),
        (
            "image: {repository: a/b, pullPolicy: Always}",
            &[
                "image ! has a repository, but neither tag nor digest; which image is meant is for its operator to say",
            ],
        ),
        ("image: {repository: 'a/b:2'}", &["image = a/b:2"]),
        (
            "image: {web: {image: a/web:1}}",
            &["image.web.image = a/web:1"],
        ),
        // NVIDIA's ClusterPolicy takes the name in three parts.
        (
            "driver: {repository: nvcr.io/nvidia, image: driver, version: '535'}\ntoolkit: {repository: nvcr.io/nvidia, image: toolkit, version: 'sha256:D'}",
            &[
                "driver.image = nvcr.io/nvidia/driver:535",
                "toolkit.image = nvcr.io/nvidia/toolkit@sha256:D",
            ],
        ),
        (
            "{registry: quay.io, image: a/b, tag: 3}",
            &["image = quay.io/a/b:3"],
        ),
        // Prometheus: the name is whole already, and the version is of something else.
        (
            "{image: 'quay.io/p/p:v2', tag: v1, version: v9}",
            &["image = quay.io/p/p:v2"],
        ),
        (
            "{image: e.io/search, version: 8.1}",
            &["image = e.io/search"],
        ),
        (
            "imageName: ghcr.io/cnpg/postgresql:16",
            &["imageName = ghcr.io/cnpg/postgresql:16"],
        ),
        ("imageName: ubuntu-22.04", &[]),
        (
            "sidecarImage: quay.io/a/s:1\nlogoImage: img/logo.png\nhasImage: true",
            &["sidecarImage = quay.io/a/s:1"],
        ),
        (
            "images: [quay.io/a/one:1, two, {image: three}]",
            &["images[0] = quay.io/a/one:1", "images[2].image = three"],
        ),
        (
            "images: {web: {repository: quay.io/a/web, tag: 1}}",
            &["images.web = quay.io/a/web:1"],
        ),
        ("source: {repository: org/code, tag: v1}", &[]),
        // Zalando's Postgres operator, Knative's ConfigMap, the Opstree Redis operator.
        (
            "connection_pooler_image: registry.opensource.zalan.do/acid/pgbouncer:master-32",
            &["connection_pooler_image = registry.opensource.zalan.do/acid/pgbouncer:master-32"],
        ),
        (
            "queue-sidecar-image: gcr.io/knative/queue@sha256:D",
            &["queue-sidecar-image = gcr.io/knative/queue@sha256:D"],
        ),
        (
            "image_name: quay.io/a/b:1\nimageRef: quay.io/a/c:1",
            &["image_name = quay.io/a/b:1", "imageRef = quay.io/a/c:1"],
        ),
        (
            "sidecar_docker_images: {backup: quay.io/a/b:1, note: no image}",
            &["sidecar_docker_images.backup = quay.io/a/b:1"],
        ),
        (
            "initImages: ['quay.io/a/b:1']\nreimage: quay.io/a/c:1",
            &["initImages[0] = quay.io/a/b:1"],
        ),
        // Strimzi: the name is part of the repository.
        (
            "image: {registry: quay.io, repository: strimzi, name: operator, tag: 0.45.0}",
            &["image = quay.io/strimzi/operator:0.45.0"],
        ),
        (
            "kafkaImage: {repository: quay.io/strimzi/, name: kafka, tag: 1}",
            &["kafkaImage = quay.io/strimzi/kafka:1"],
        ),
        (
            "image: {registry: quay.io, repository: strimzi/operator, name: operator, tag: 1}",
            &["image = quay.io/strimzi/operator:1"],
        ),
        // In a list, a name is the item's.
        (
            "images: [{name: web, repository: quay.io/a/app, tag: 1}]",
            &["images[web] = quay.io/a/app:1"],
        ),
        // OpenShift.
        (
            "tags: [{name: '1', from: {kind: DockerImage, name: 'quay.io/a/b:1'}}, {name: '2', from: {kind: ImageStreamTag, name: 'b:1'}}]",
            &["tags[1].from.name = quay.io/a/b:1"],
        ),
        (
            "strategy: {dockerStrategy: {from: {kind: DockerImage, name: centos}}}\noutput: {to: {kind: DockerImage, name: 'quay.io/a/pushed:1'}}",
            &["strategy.dockerStrategy.from.name = centos"],
        ),
        (
            "from: {kind: DockerImage, name: 'A b'}",
            &[
                "from.name ! is no image name: `A b` is not a valid repository name; it may hold lower-case letters, digits and, between them, `.`, `_`, `__`, `-` and `/`",
            ],
        ),
        ("from: {kind: DockerImage}", &["from ! has no name"]),
        // Filled in later.
        ("image: auto", &["image ~ auto"]),
        ("image: 'auto:1'", &["image = auto:1"]),
        (
            "image: '{{inputs.parameters.image}}'",
            &["image ~ {{inputs.parameters.image}}"],
        ),
        (
            "image: '$(params.builder)'\nother: {image: '$(params.builder)'}",
            &["image ~ $(params.builder)"],
        ),
        (
            "image: {repository: '<registry>/app', tag: v1}",
            &["image ~ <registry>/app:v1"],
        ),
        (
            "image: {repository: a/b, tag: '${TAG}'}",
            &["image ~ a/b:${TAG}"],
        ),
        (
            "sidecarImage: '${IMAGE}'\ntitleImage: 'a <b>word</b>'\nbuildImage: auto",
            &["sidecarImage ~ ${IMAGE}"],
        ),
        (
            "image: 'https://u:hunter2@${HOST}/x:1'",
            &["image ! is a URL; write the image's name without `…://`"],
        ),
        (
            "image: {repository: 'https://charts.example.com', tag: 1}",
            &["image ! is a URL; write the image's name without `…://`"],
        ),
        ("image:\nother: {image: ~}\nthird: {image: ' '}", &[]),
        ("features: {image: true}\nsizes: {image: 12}", &[]),
        ("image: 'sha256:D'", &["image = sha256:D"]),
    ];
    for (spec, expected) in table {
        let spec = spec.replace("sha256:D", &format!("sha256:{digest}"));
        let indented = spec.replace('\n', "\n  ");
        let text =
            format!("apiVersion: x.io/v1\nkind: X\nmetadata: {{name: x}}\nspec:\n  {indented}\n");
        let found: Vec<_> = found(&text)
            .into_iter()
            .map(|line| line.split_once(" X/x: spec.").unwrap().1.to_owned())
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|line| line.replace("sha256:D", &format!("sha256:{digest}")))
            .collect();
        assert_eq!(found, expected, "{spec}");
    }
}

#[test]
fn what_may_be_images() {
    let text = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: operator}
spec:
  template:
    spec:
      containers:
      - name: main
        image: quay.io/o/operator:1
        command: [/bin/operator, --config=/etc/x.yaml]
        args:
        - --prometheus-config-reloader=quay.io/o/reloader:v1
        - --self=quay.io/o/operator:1
        - --sidecar-image
        - busybox:1.36
        - --listen=0.0.0.0:8080
        env:
        - {name: RELATED_IMAGE_PROXY, value: 'quay.io/o/proxy@sha256:D'}
        - {name: WATCH, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: AGAIN, value: quay.io/o/reloader:v1}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: templates}
data:
  pod.yaml: |
    image: ghcr.io/o/runner:2
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {args: quay.io/o/secret:1}
";
    let text = text.replace("sha256:D", &format!("sha256:{}", "d".repeat(64)));
    let proxy = format!("quay.io/o/proxy@sha256:{}", "d".repeat(64));
    let main = "Deployment/operator: spec.template.spec.containers[main]";
    assert_eq!(
        found(&text),
        [
            format!("9 {main}.image = quay.io/o/operator:1"),
            format!("12 {main}.args[0] ? quay.io/o/reloader:v1"),
            format!("15 {main}.args[3] ? busybox:1.36"),
            format!("18 {main}.env[RELATED_IMAGE_PROXY].value ? {proxy}"),
            "27 ConfigMap/templates: data.pod.yaml ? ghcr.io/o/runner:2".to_owned(),
        ]
    );
}

#[test]
fn byte_order_marks() {
    let one = "\u{feff}kind: Pod\napiVersion: v1\nspec: {containers: [{name: a, image: a:1}]}\n";
    let two = one.replace("a:1", "b:1");
    assert_eq!(
        found(&format!("{one}---\n{two}")),
        [
            "3 Pod: spec.containers[a].image = a:1",
            "7 Pod: spec.containers[a].image = b:1"
        ]
    );
    let json = "\u{feff}{\"kind\": \"Pod\", \"image\": \"a:1\"}\n";
    assert_eq!(
        found(&json.repeat(2).replacen("a:1", "b:1", 1)),
        ["1 image = b:1", "2 image = a:1"]
    );
}

#[test]
fn lists_and_what_a_cluster_reports() {
    let text = r#"{
  "apiVersion": "v1", "kind": "List",
  "items": [
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{\"image\":\"x\"}"}},
	 "spec": {"containers": [{"name": "c", "image": "a.io\/x:1"}]},
     "status": {"containerStatuses": [{"image": "sha256:0", "imageID": "a.io/x@sha256:0"}]}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "b-"},
     "spec": {"containers": [{"name": "c\ud83d\ude00", "image": "a.io/x:2"}]}}
  ]
}"#;
    assert_eq!(
        found(text),
        [
            "5 Pod/a: spec.containers[c].image = a.io/x:1",
            "8 Pod/b-: spec.containers[c😀].image = a.io/x:2",
        ]
    );
}

#[test]
fn images_that_kuik_keeps() {
    let text = "\
apiVersion: v1
kind: List
items:
- apiVersion: kuik.enix.io/v1alpha1
  kind: CachedImage
  metadata: {name: nginx}
  spec:
    sourceImage: nginx:1.27
    retain: true
- apiVersion: kuik.enix.io/v1alpha1
  kind: CachedImage
  metadata: {name: redis}
  spec:
    sourceImage: redis
    retain: false
- {apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: a, image: 'q.io/a/b:1'}]}}
- {apiVersion: kuik.enix.io/v1alpha1, kind: CachedImage, metadata: {name: b}, spec: {retain: true, sourceImage: 'q.io/a/b:1'}}
- {apiVersion: kuik.enix.io/v1alpha1, kind: CachedImage, metadata: {name: c}, spec: {sourceImage: 'UPPER:1'}}
";
    assert_eq!(
        found(text),
        [
            "8 CachedImage/nginx: spec.sourceImage = nginx:1.27 (kept)",
            "14 CachedImage/redis: spec.sourceImage = redis",
            "16 Pod/web: spec.containers[a].image = q.io/a/b:1 (kept)",
            "18 CachedImage/c: spec.sourceImage ! is no image name: repository name `UPPER` has upper-case letters; write `upper`",
        ]
    );
}

#[test]
fn json_documents_without_anything_between() {
    let pod = |name: &str| {
        format!(
            "{{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {{\"name\": \"{name}\"}},\n\"spec\": {{\"containers\": [\n{{\"name\": \"c\", \"image\": \"{name}:1\"}}]}}}}"
        )
    };
    assert_eq!(
        found(&format!("{}\n{} {}\n", pod("a"), pod("b"), pod("c"))),
        [
            "3 Pod/a: spec.containers[c].image = a:1",
            "6 Pod/b: spec.containers[c].image = b:1",
            "8 Pod/c: spec.containers[c].image = c:1",
        ]
    );
}

#[test]
fn schemas_describe_images_and_name_none() {
    let text = "\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: x}
spec: {versions: [{schema: {openAPIV3Schema: {properties: {image: {type: string, default: x}}, example: {image: '%'}}}}]}
";
    assert_eq!(found(text), [""; 0]);
}

#[test]
fn mistakes_have_a_line_and_quote_no_more_than_the_name() {
    let text = "\
kind: Pod
apiVersion: v1
metadata: {name: p}
spec:
  containers:
  - image: Nginx:1
    password: hunter2
  - image: 'https://u:hunter2@r.io/x:1'
  - image: '${REGISTRY}/x:1'
  - image: 'a.io/x:1 '
---
a: [hunter2
";
    assert_eq!(
        found(text),
        [
            "10 Pod/p: spec.containers[3].image = a.io/x:1",
            "9 Pod/p: spec.containers[2].image ~ ${REGISTRY}/x:1",
            "6 Pod/p: spec.containers[0].image ! is no image name: repository name `Nginx` has upper-case letters; write `nginx`",
            "8 Pod/p: spec.containers[1].image ! is a URL; write the image's name without `…://`",
            "12  ! neither YAML nor JSON from here on: unclosed bracket '['",
        ]
    );
    assert_eq!(
        found("kind: Pod\nspec:\n  image: {{ .Values.image }}\n"),
        ["3  ! this is a template; render it first, such as with `helm template`"]
    );
}

#[test]
fn anchors_and_repeated_keys_are_fine() {
    let text = "x-any: &i quay.io/a/b:1\nc: {image: *i}\nd: {image: a:1, image: a:2}\n";
    assert_eq!(
        found(text),
        [
            "2 c.image = quay.io/a/b:1",
            "3 d.image = a:1",
            "3 d.image = a:2"
        ]
    );
}

#[test]
fn nothing_in_nothing() {
    for text in ["", "\u{feff}", "---\n---\n", "just text", "- a\n- b", "{}"] {
        assert_eq!(found(text), [""; 0], "{text:?}");
    }
}

proptest! {
    #[test]
    fn never_panics(text in "(?s).{0,200}") {
        images(&text);
    }

    #[test]
    fn never_panics_on_what_is_almost_a_manifest(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "image", ": ", "\n", "  ", "- ", "{", "}", "[", "]", "repository", "tag", "a/b", "\"", "'",
                "&a ", "*a", "kind: Pod\n", "apiVersion: v1\n", "---\n", "metadata", "name", "x:1", ",", "<<: ", "spec:\n",
            ]),
            0..40,
        )
    ) {
        let text = parts.concat();
        for found in images(&text).images {
            let is_name = crate::Reference::parse(&found.image).is_ok();
            prop_assert!(is_name || crate::reference::is_image_id(&found.image));
            prop_assert!(found.place.position.line >= 1);
        }
    }
}
