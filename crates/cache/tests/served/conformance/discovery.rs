//! Determining support.

use crate::world::World;

#[tokio::test]
async fn v2_must_be_200_where_the_specification_is_implemented() {
    let world = World::start().await;
    for path in ["/v2/", "/v2"] {
        for method in ["GET", "HEAD"] {
            let answer = world.ask(method, path, &[]).await;
            assert_eq!(answer.status, 200, "{method} {path}");
        }
    }
    // Nobody else is asked for that.
    assert!(world.registry.requests().is_empty());
}
