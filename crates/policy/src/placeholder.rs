//! Texts that stand where an image will be: templates, and words that somebody replaces later.

/// What Istio's injected gateways write as their image; a webhook of Istio's fills it in.
const FILLED_IN_BY_ISTIO: &str = "auto";

/// Whether `image` is no image yet, but is filled in before anything is pulled: Istio's `auto`, or a text
/// with a placeholder in it, such as `{{workflow.parameters.image}}`, `$(params.image)`, `${IMAGE}:1` or
/// `<registry>/app:1`. None of these is a reference by the grammar, but for `auto`.
///
/// ```
/// assert!(policy::placeholder::is_placeholder("$(params.builder)"));
/// assert!(policy::placeholder::is_placeholder("auto"));
/// assert!(!policy::placeholder::is_placeholder("auto:1"));
/// ```
pub fn is_placeholder(image: &str) -> bool {
    let image = image.trim();
    image == FILLED_IN_BY_ISTIO
        || image.contains("{{")
        || image.contains("{%")
        || image.contains("#{")
        || has_variable(image)
        || has_angle_brackets(image)
}

/// `$NAME`, `${…}`, `$(…)`, `$[…]`, also with more `$` before.
fn has_variable(text: &str) -> bool {
    let mut parts = text.split('$').skip(1);
    parts.any(|after| {
        let first = after.chars().next();
        first.is_some_and(|c| c == '_' || c.is_ascii_alphabetic() || "{([".contains(c))
    })
}

/// `<registry>`, `<your-image>`.
fn has_angle_brackets(text: &str) -> bool {
    match text.split_once('<') {
        Some((_, after)) => after
            .split_once('>')
            .is_some_and(|(name, _)| !name.is_empty()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reference;

    const PLACEHOLDERS: [&str; 16] = [
        "auto",
        " auto ",
        "{{workflow.parameters.image}}",
        "docker.io/org/app:{{inputs.parameters.tag}}",
        "{{ .Values.image }}",
        "{% image %}",
        "$(params.builder-image)",
        "$(inputs.params.registry)/app:1",
        "${IMAGE}",
        "${REGISTRY}/app:${TAG}",
        "$IMAGE",
        "registry.corp/app:$_TAG",
        "$$IMAGE",
        "<registry>/app:1",
        "<image>",
        "#{Registry}#/app:1",
    ];

    #[test]
    fn what_is_filled_in_later() {
        for text in PLACEHOLDERS {
            assert!(is_placeholder(text), "{text}");
            assert!(
                text.trim() == "auto" || Reference::parse(text).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_an_image_or_a_mistake() {
        let others = [
            "",
            "nginx",
            "auto:1",
            "docker.io/library/auto",
            "library/auto",
            "a/auto:latest",
            "Auto",
            "https://a.io/x",
            "a<b",
            "a>b",
            "<>",
            "cost$",
            "$1",
            "Nginx:1",
            "a.io/x:1@sha256:0",
        ];
        for text in others {
            assert!(!is_placeholder(text), "{text}");
        }
    }
}
