//! Where in a Pod references stand.

use super::bounded::{Few, ImageVolumes};
use super::object::Spec;

/// A place in a Pod where a reference stands.
pub(super) struct Place<'p> {
    pub(super) pointer: String,
    pub(super) name: String,
    pub(super) image: &'p str,
    /// Whether it is pulled: with `Never` it is on the node already, under the name that is written.
    pub(super) is_pulled: bool,
}

/// All of them.
pub(super) fn places(spec: &Spec) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    for (kind, containers) in spec.containers() {
        let containers = containers.map_or(&[][..], Few::kept).iter().enumerate();
        places.extend(containers.filter_map(|(at, container)| {
            Some(Place {
                pointer: format!("/spec/{kind}/{at}/image"),
                name: container.name.clone(),
                image: container.image.as_deref()?,
                is_pulled: is_pulled(container.image_pull_policy.as_deref()),
            })
        }));
    }
    let volumes = spec.volumes.as_ref().map_or(&[][..], ImageVolumes::kept);
    places.extend(volumes.iter().filter_map(|(at, name, image)| {
        Some(Place {
            pointer: format!("/spec/volumes/{at}/image/reference"),
            name: format!("volume/{name}"),
            image: image.reference.as_deref()?,
            is_pulled: is_pulled(image.pull_policy.as_deref()),
        })
    }));
    places
}

fn is_pulled(policy: Option<&str>) -> bool {
    policy != Some("Never")
}
