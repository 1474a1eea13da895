//! What a client asks of a list, and the page of a whole list that it asks for. Pure.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The query of a request for a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// At most so many tags.
    n: Option<usize>,
    /// Only tags after this one.
    last: Option<String>,
    /// Only referrers of this type.
    pub(super) artifact_type: Option<String>,
}

impl Query {
    /// Reads what stands behind the `?`. What can't be read is as if it were not there.
    pub(super) fn parse(query: Option<&str>) -> Self {
        let mut parsed = Self::default();
        for pair in query.unwrap_or_default().split('&') {
            let Some((name, value)) = pair.split_once('=') else {
                continue;
            };
            // A `+` stays one: no tag and no media type has a space, and many clients don't encode it.
            let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
            match name {
                "n" => parsed.n = value.parse().ok(),
                "last" if !value.is_empty() => parsed.last = Some(value),
                "artifactType" if !value.is_empty() => parsed.artifact_type = Some(value),
                _ => {}
            }
        }
        parsed
    }

    /// What a registry is asked: the same, in words that every registry reads alike.
    pub(super) fn for_registry(&self, query: Option<&str>) -> Option<String> {
        if self.is_for_none() {
            // Registries make different things of none; whether there are any shows with one.
            return Some("n=1".to_owned());
        }
        let pairs = query?.split('&').map(|pair| match pair.split_once('=') {
            // Most would read a space.
            Some(("artifactType", kind)) => format!("artifactType={}", kind.replace('+', "%2B")),
            _ => pair.to_owned(),
        });
        Some(pairs.collect::<Vec<_>>().join("&"))
    }

    /// Whether no tag at all is asked for.
    pub(super) fn is_for_none(&self) -> bool {
        self.n == Some(0)
    }

    /// Whether a registry's list is what was asked for. One that knows no pages sends all.
    pub(super) fn fits(&self, tags: &[String]) -> bool {
        let is_short = self.n.is_none_or(|n| tags.len() <= n);
        // In the one order or the other.
        let is_before =
            |tag: &String, last: &String| tag <= last && tag.to_lowercase() <= last.to_lowercase();
        let mut last = self.last.iter();
        is_short && !last.any(|last| tags.iter().any(|tag| is_before(tag, last)))
    }

    /// The page of all tags that is asked for, and the query of the next one.
    pub(super) fn page(&self, mut tags: Vec<String>) -> (Vec<String>, Option<String>) {
        tags.sort_unstable();
        tags.dedup();
        if let Some(last) = &self.last {
            tags.retain(|tag| tag > last);
        }
        let Some(n) = self.n.filter(|n| *n < tags.len()) else {
            return (tags, None);
        };
        tags.truncate(n);
        let next = tags.last().map(|last| {
            let last = utf8_percent_encode(last, NON_ALPHANUMERIC);
            format!("last={last}&n={n}")
        });
        (tags, next)
    }
}

/// Whether tags are in one of the two orders that the specification allows.
pub(super) fn is_in_order(tags: &[String]) -> bool {
    tags.is_sorted() || tags.is_sorted_by_key(|tag| tag.to_lowercase())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tags(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn queries() {
        let query = Query::parse(Some("n=2&last=1%2E0&x=y&artifactType=a%2Fb+json&n"));
        assert_eq!((query.n, query.last.as_deref()), (Some(2), Some("1.0")));
        assert_eq!(query.artifact_type.as_deref(), Some("a/b+json"));
        for nothing in [None, Some(""), Some("n=x&last="), Some("n=-1")] {
            assert_eq!(Query::parse(nothing), Query::default(), "{nothing:?}");
        }
    }

    #[test]
    fn what_registries_are_asked() {
        for (query, asked) in [
            (None, None),
            (Some("n=0&last=x"), Some("n=1")),
            (Some("n=2&last=a+b"), Some("n=2&last=a+b")),
            (Some("artifactType=a/b+c&x"), Some("artifactType=a/b%2Bc&x")),
        ] {
            let found = Query::parse(query).for_registry(query);
            assert_eq!(found.as_deref(), asked, "{query:?}");
        }
    }

    #[test]
    fn pages() {
        let all = tags(&["c", "a", "B", "a", "d"]);
        for (query, page, next) in [
            ("", &["B", "a", "c", "d"][..], None),
            ("n=2", &["B", "a"], Some("last=a&n=2")),
            ("n=2&last=a", &["c", "d"], None),
            ("last=c", &["d"], None),
            ("n=0", &[], None),
            ("n=4", &["B", "a", "c", "d"], None),
            ("last=z", &[], None),
        ] {
            let found = Query::parse(Some(query)).page(all.clone());
            assert_eq!(found.0, page, "{query}");
            assert_eq!(found.1.as_deref(), next, "{query}");
        }
    }

    #[test]
    fn a_list_of_a_registry_without_pages_is_noticed() {
        let list = tags(&["a", "b", "c"]);
        for (query, fits) in [
            ("", true),
            ("n=3", true),
            ("n=2", false),
            ("last=b", false),
            ("last=0", true),
            ("last=aa", false),
        ] {
            assert_eq!(Query::parse(Some(query)).fits(&list), fits, "{query}");
        }
        assert!(is_in_order(&tags(&["a", "B", "c"])));
        assert!(is_in_order(&tags(&["B", "a", "c"])));
        assert!(!is_in_order(&tags(&["b", "a"])));
    }

    proptest! {
        #[test]
        fn links_lead_through_all_once(
            names in prop::collection::btree_set("[A-Za-z0-9_.-]{1,4}", 0..20),
            n in 1usize..5,
        ) {
            let all: Vec<String> = names.into_iter().collect();
            let mut found = Vec::new();
            let mut next = Some(format!("n={n}"));
            while let Some(query) = next {
                let (page, more) = Query::parse(Some(&query)).page(all.clone());
                prop_assert!(page.len() <= n);
                found.extend(page);
                next = more;
            }
            prop_assert_eq!(found, all);
        }
    }
}
