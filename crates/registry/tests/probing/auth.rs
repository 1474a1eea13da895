//! Basic and Bearer, and how little of them is needed.

use std::time::Duration;

use http::StatusCode;
use policy::Credentials;
use registry::{Cause, Outcome};
use testkit::fake_registry::{Behaviour, FakeRegistry, TokenOptions, TokenService};
use testkit::images::Image;

use crate::setup::{ask, cause, client, found, is_found, registry, target, with_auth};

/// A registry behind a token service that knows `u` with `p:w`.
fn guarded(options: TokenOptions) -> (FakeRegistry, Image, TokenService) {
    let (registry, image) = registry();
    let service = TokenService::start(options).unwrap();
    registry.require_token(&service);
    (registry, image, service)
}

fn private() -> TokenOptions {
    TokenOptions {
        credentials: Some(("u".into(), "p:w".into())),
        ..TokenOptions::default()
    }
}

#[tokio::test]
async fn basic_is_sent_when_asked_for_and_up_front_after_that() {
    let (registry, image) = registry();
    registry.require_basic("u", "p:w");
    let client = client();
    let target = with_auth(&registry.url(), "u", "p:w");
    let first = ask(&client, &target).await;
    assert_eq!((first.outcome, first.requests), (found(&image), 2));
    let second = ask(&client, &target).await;
    assert_eq!((second.outcome, second.requests), (found(&image), 1));
    let sent: Vec<bool> = registry
        .requests()
        .iter()
        .map(|request| request.has_basic("u", "p:w"))
        .collect();
    assert_eq!(sent, [false, true, true]);
}

#[tokio::test]
async fn wrong_and_missing_passwords_are_unauthorized() {
    let (registry, _) = registry();
    registry.require_basic("u", "right");
    let client = client();
    let wrong = ask(&client, &with_auth(&registry.url(), "u", "hunter2")).await;
    assert_eq!((wrong.outcome, wrong.requests), (Outcome::Unauthorized, 2));
    assert!(!wrong.detail.contains("hunter2"), "{}", wrong.detail);
    let none = ask(&client, &target(&registry.url())).await;
    assert_eq!((none.outcome, none.requests), (Outcome::Unauthorized, 1));
    assert!(none.detail.contains("set auth"), "{}", none.detail);
}

#[tokio::test]
async fn an_anonymous_token_is_fetched_once_and_used_up_front() {
    for field in ["token", "access_token"] {
        let (registry, image, service) = guarded(TokenOptions {
            field,
            ..TokenOptions::default()
        });
        let client = client();
        let first = ask(&client, &target(&registry.url())).await;
        assert_eq!((first.outcome, first.requests), (found(&image), 3));
        let second = ask(&client, &target(&registry.url())).await;
        assert_eq!((second.outcome, second.requests), (found(&image), 1));
        let asked = service.recording().all();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].authorization(), None);
        assert_eq!(
            asked[0].path,
            "/token?service=fake-registry&scope=repository%3Ateam%2Fapp%3Apull"
        );
    }
}

#[tokio::test]
async fn another_repository_needs_another_token_and_no_challenge() {
    let (registry, image, service) = guarded(TokenOptions::default());
    registry.add(&image, "team/other", "1");
    let client = client();
    assert!(is_found(&ask(&client, &target(&registry.url())).await));
    let mut other = target(&registry.url());
    other.name.repository = "team/other".into();
    let probe = ask(&client, &other).await;
    assert_eq!((probe.outcome, probe.requests), (found(&image), 2));
    assert_eq!(service.recording().all().len(), 2);
}

#[tokio::test]
async fn credentials_go_to_the_token_service_and_not_to_the_registry() {
    let (registry, image, service) = guarded(private());
    let probe = ask(&client(), &with_auth(&registry.url(), "u", "p:w")).await;
    assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
    assert!(service.recording().all()[0].has_basic("u", "p:w"));
    for request in registry.requests() {
        let sent = request.authorization().unwrap_or("Bearer");
        assert!(sent.starts_with("Bearer"), "{request:?}");
    }
}

#[tokio::test]
async fn tokens_of_one_user_are_not_used_for_another() {
    let (registry, _, service) = guarded(private());
    let client = client();
    let known = with_auth(&registry.url(), "u", "p:w");
    assert!(is_found(&ask(&client, &known).await));
    let anonymous = ask(&client, &target(&registry.url())).await;
    assert_eq!(anonymous.outcome, Outcome::Unauthorized);
    assert!(is_found(&ask(&client, &known).await));
    assert_eq!(service.recording().all().len(), 2);
}

#[tokio::test]
async fn refused_credentials_and_tokens_are_unauthorized() {
    let (registry, _, service) = guarded(private());
    let client = client();
    let wrong = ask(&client, &with_auth(&registry.url(), "u", "hunter2")).await;
    assert_eq!(wrong.outcome, Outcome::Unauthorized);
    assert!(wrong.detail.contains("token service"), "{}", wrong.detail);
    assert!(!wrong.detail.contains("hunter2"));

    // 401 whatever token comes: one token, one more try, and no loop.
    service.recording().clear();
    let realm = service.realm();
    registry.recording().clear();
    registry.require_nothing();
    registry.behave(Behaviour::Challenge(format!("Bearer realm=\"{realm}\"")));
    let probe = ask(&client, &with_auth(&registry.url(), "u", "p:w")).await;
    assert_eq!(probe.outcome, Outcome::Unauthorized, "{}", probe.detail);
    assert_eq!(service.recording().all().len(), 1);
    assert_eq!(registry.requests().len(), 2);
}

#[tokio::test]
async fn a_token_that_was_revoked_is_refreshed_once() {
    let (registry, image, service) = guarded(TokenOptions::default());
    let client = client();
    assert!(is_found(&ask(&client, &target(&registry.url())).await));
    service.revoke();
    let probe = ask(&client, &target(&registry.url())).await;
    assert_eq!((probe.outcome, probe.requests), (found(&image), 3));
    assert_eq!(service.recording().all().len(), 2);
}

/// Some registries say 403 or 400 to a token that has lost its right.
#[tokio::test]
async fn an_old_token_that_is_refused_by_another_status_is_replaced_once() {
    for status in [StatusCode::FORBIDDEN, StatusCode::BAD_REQUEST] {
        let (registry, image, service) = guarded(TokenOptions::default());
        let client = client();
        assert!(is_found(&ask(&client, &target(&registry.url())).await));
        registry.refuse_unknown_tokens_with(status);
        service.revoke();
        let probe = ask(&client, &target(&registry.url())).await;
        let seen = (probe.outcome, probe.requests);
        assert_eq!(seen, (found(&image), 3), "{}", probe.detail);
        assert_eq!(service.recording().all().len(), 2);

        // Whoever may really not: a new token is tried, and then the answer counts.
        registry.behave(Behaviour::Status(status));
        let probe = ask(&client, &target(&registry.url())).await;
        assert!(!is_found(&probe), "{}", probe.detail);
        assert_eq!(service.recording().all().len(), 3);

        // No other can be had: the registry's answer counts.
        service.behave(Behaviour::Status(StatusCode::INTERNAL_SERVER_ERROR));
        if status == StatusCode::FORBIDDEN {
            let probe = ask(&client, &target(&registry.url())).await;
            assert_eq!(probe.outcome, Outcome::Unauthorized, "{}", probe.detail);
            assert!(probe.detail.contains("403"), "{}", probe.detail);
        }
    }
}

#[tokio::test]
async fn a_token_is_not_used_past_its_life() {
    let (registry, _, service) = guarded(TokenOptions {
        expires_in: Some(1),
        ..TokenOptions::default()
    });
    let client = client();
    assert!(is_found(&ask(&client, &target(&registry.url())).await));
    // It still opens the registry: only its age makes us ask for another.
    testkit::wait::until("another token", || async {
        assert!(is_found(&ask(&client, &target(&registry.url())).await));
        (service.recording().all().len() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_token_service_in_trouble_is_named() {
    for (behaviour, words) in [
        (None, "connection refused"),
        (Some(Behaviour::CaptivePortal), "not the JSON"),
        (Some(Behaviour::Endless), "64 KiB"),
        (Some(Behaviour::Truncated), "middle of its body"),
        (
            Some(Behaviour::Status(StatusCode::INTERNAL_SERVER_ERROR)),
            "answered 500",
        ),
        (Some(Behaviour::RedirectLoop), "redirected in a circle"),
        (Some(Behaviour::BlackHole), "no answer within"),
    ] {
        let (registry, image, service) = guarded(TokenOptions::default());
        match behaviour {
            Some(behaviour) => service.behave(behaviour),
            None => service.stop().await,
        }
        let client = client();
        let mut quick = target(&registry.url());
        quick.deadline = Duration::from_secs(1);
        let probe = ask(&client, &quick).await;
        assert_eq!(cause(&probe), Some(Cause::TokenService), "{}", probe.detail);
        assert!(probe.detail.contains(words), "{words}: {}", probe.detail);
        assert!(probe.detail.contains("token service"), "{}", probe.detail);

        // Nothing of it sticks.
        service.behave(Behaviour::Serve);
        service.stop().await;
        service.start_again().await.unwrap();
        let probe = ask(&client, &target(&registry.url())).await;
        assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
    }
}

#[tokio::test]
async fn a_token_service_can_say_no_and_not_now() {
    let (registry, _, service) = guarded(TokenOptions::default());
    let client = client();
    service.behave(Behaviour::Status(StatusCode::FORBIDDEN));
    let probe = ask(&client, &target(&registry.url())).await;
    assert_eq!(probe.outcome, Outcome::Unauthorized);
    service.behave(Behaviour::RateLimited {
        retry_after: Some("9".into()),
    });
    let probe = ask(&client, &target(&registry.url())).await;
    let retry_after = Some(Duration::from_secs(9));
    assert_eq!(probe.outcome, Outcome::RateLimited { retry_after });
}

#[tokio::test]
async fn a_registry_that_changes_its_mind_is_followed() {
    let (registry, image, _service) = guarded(TokenOptions::default());
    let client = client();
    let target = with_auth(&registry.url(), "u", "p");
    assert!(is_found(&ask(&client, &target).await));
    registry.require_basic("u", "p");
    let probe = ask(&client, &target).await;
    assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
    registry.require_nothing();
    assert_eq!(ask(&client, &target).await.outcome, found(&image));
}

#[tokio::test]
async fn challenges_without_an_answer_end_at_once() {
    let (registry, _) = registry();
    for challenge in [
        "Negotiate",
        "Bearer realm=\"file:///etc/passwd\"",
        "Bearer service=\"x\"",
        "\"",
    ] {
        registry.behave(Behaviour::Challenge(challenge.into()));
        let probe = ask(&client(), &with_auth(&registry.url(), "u", "p")).await;
        assert_eq!(probe.outcome, Outcome::Unauthorized, "{challenge}");
        assert_eq!(probe.requests, 1);
    }
    assert!(
        registry
            .requests()
            .iter()
            .all(|request| request.authorization().is_none())
    );
}

/// What `az acr login` leaves behind: a token that only the token service takes, and only by POST.
#[tokio::test]
async fn an_identity_token_is_traded_for_a_token() {
    let (registry, image, service) = guarded(TokenOptions {
        identity_token: Some("hunter2+/=".into()),
        credentials: Some(("nobody".into(), "x".into())),
        ..TokenOptions::default()
    });
    let client = client();
    let mut asked = target(&registry.url());
    asked.registry.credentials = Some(Credentials::identity_token("hunter2+/="));
    let first = ask(&client, &asked).await;
    assert_eq!(
        (first.outcome, first.requests),
        (found(&image), 3),
        "{}",
        first.detail
    );
    let second = ask(&client, &asked).await;
    assert_eq!((second.outcome, second.requests), (found(&image), 1));
    let [traded] = service.recording().all().try_into().unwrap();
    assert_eq!(
        (traded.method.as_str(), traded.path.as_str()),
        ("POST", "/token")
    );
    assert_eq!(traded.authorization(), None);
    for request in registry.requests() {
        let sent = request.authorization().unwrap_or("Bearer");
        assert!(
            sent.starts_with("Bearer") && !sent.contains("hunter2"),
            "{sent}"
        );
    }

    asked.registry.credentials = Some(Credentials::identity_token("expired-hunter2"));
    let refused = ask(&client, &asked).await;
    assert_eq!(refused.outcome, Outcome::Unauthorized, "{}", refused.detail);
    assert!(refused.detail.contains("log in anew"), "{}", refused.detail);
    assert!(!refused.detail.contains("hunter2"), "{}", refused.detail);
}

#[tokio::test]
async fn an_identity_token_goes_no_further_than_its_token_service() {
    let elsewhere = TokenService::start(TokenOptions::default()).unwrap();
    let (registry, _, service) = guarded(TokenOptions::default());
    let mut asked = target(&registry.url());
    asked.registry.credentials = Some(Credentials::identity_token("hunter2"));
    // A redirect would take the body, and the token in it, along.
    service.behave(Behaviour::Redirect(elsewhere.realm().to_owned()));
    let probe = ask(&client(), &asked).await;
    assert_eq!(cause(&probe), Some(Cause::TokenService), "{}", probe.detail);
    assert!(elsewhere.recording().is_empty());

    // And it is no password.
    registry.require_basic("u", "hunter2");
    registry.recording().clear();
    let probe = ask(&client(), &asked).await;
    assert_eq!(probe.outcome, Outcome::Unauthorized, "{}", probe.detail);
    assert!(
        registry
            .requests()
            .iter()
            .all(|r| r.authorization().is_none())
    );
}

#[tokio::test]
async fn a_registry_token_is_sent_as_it_is_and_only_to_the_registry() {
    let (registry, image, service) = guarded(TokenOptions::default());
    let token = service.issue_token("repository:team/app:pull");
    let client = client();
    let mut asked = target(&registry.url());
    asked.registry.credentials = Some(Credentials::registry_token(token));
    for requests in [2, 1] {
        let probe = ask(&client, &asked).await;
        assert_eq!(
            (probe.outcome, probe.requests),
            (found(&image), requests),
            "{}",
            probe.detail
        );
    }
    service.revoke();
    let probe = ask(&client, &asked).await;
    assert_eq!(probe.outcome, Outcome::Unauthorized, "{}", probe.detail);
    assert!(service.recording().is_empty());
}

/// Two entries on one host, each with a token service that knows its own user only.
#[tokio::test]
async fn one_host_can_have_a_token_service_for_each_entry() {
    let (registry, image) = registry();
    let service = |user: &str| {
        TokenService::start(TokenOptions {
            credentials: Some((user.into(), "p".into())),
            ..TokenOptions::default()
        })
        .unwrap()
    };
    let (a, b) = (service("ua"), service("ub"));
    let entry = |path: &str, user: &str, service: &TokenService| {
        let repository = format!("{path}/app");
        registry.add(&image, &repository, "1");
        registry.require_token_below(path, service);
        let mut entry = with_auth(&format!("{}/{path}", registry.url()), user, "p");
        entry.name.repository = repository;
        entry
    };
    let (of_a, of_b) = (entry("repoa", "ua", &a), entry("repob", "ub", &b));
    let client = client();
    for requests in [3, 1] {
        for entry in [&of_a, &of_b] {
            let probe = ask(&client, entry).await;
            let seen = (probe.outcome, probe.requests);
            assert_eq!(seen, (found(&image), requests), "{}", probe.detail);
        }
    }
    for (service, user) in [(&a, "ua"), (&b, "ub")] {
        for request in service.recording().all() {
            assert!(request.has_basic(user, "p"), "{request:?}");
        }
    }
}

/// The same user everywhere, and one entry: what was remembered of one repository is wrong for the other.
#[tokio::test]
async fn a_remembered_token_service_is_no_verdict_on_another_repository() {
    for refuses in [true, false] {
        let (registry, image) = registry();
        let a = TokenService::start(TokenOptions::default()).unwrap();
        let b = TokenService::start(private()).unwrap();
        for (path, service) in [("repoa", &a), ("repob", &b)] {
            registry.add(&image, &format!("{path}/app"), "1");
            registry.require_token_below(path, service);
        }
        let client = client();
        let mut entry = with_auth(&registry.url(), "u", "p:w");
        let mut ask = async |path: &str| {
            entry.name.repository = format!("{path}/app");
            ask(&client, &entry).await
        };
        assert!(is_found(&ask("repoa").await));
        if refuses {
            a.behave(Behaviour::Status(StatusCode::UNAUTHORIZED));
        }
        let probe = ask("repob").await;
        assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
        a.behave(Behaviour::Serve);

        // From now on each question waits for its own challenge: no password goes to the wrong service.
        let asked = a.recording().all().len();
        for _ in 0..2 {
            assert!(is_found(&ask("repob").await));
        }
        assert_eq!(a.recording().all().len(), asked);
        assert!(is_found(&ask("repoa").await));
    }
}

#[tokio::test]
async fn a_remembered_token_service_that_is_silent_costs_one_question() {
    let (registry, image, old) = guarded(TokenOptions::default());
    registry.add(&image, "team/other", "1");
    let client = client();
    assert!(is_found(&ask(&client, &target(&registry.url())).await));
    old.behave(Behaviour::BlackHole);
    let new = TokenService::start(TokenOptions::default()).unwrap();
    registry.require_token(&new);
    let mut other = target(&registry.url());
    other.name.repository = "team/other".into();
    other.deadline = Duration::from_secs(1);
    let silent = ask(&client, &other).await;
    assert_eq!(
        cause(&silent),
        Some(Cause::TokenService),
        "{}",
        silent.detail
    );
    let probe = ask(&client, &other).await;
    assert_eq!(probe.outcome, found(&image), "{}", probe.detail);
}

#[tokio::test]
async fn a_realm_that_names_a_scope_is_for_one_repository() {
    let (registry, image, service) = guarded(TokenOptions::default());
    registry.add(&image, "team/other", "1");
    registry.require_nothing();
    let client = client();
    for repository in ["team/app", "team/other"] {
        let challenge = format!(
            "Bearer realm=\"{}?scope=repository:{repository}:pull\"",
            service.realm()
        );
        registry.behave_for(repository, Behaviour::Challenge(challenge));
        let mut asked = target(&registry.url());
        asked.name.repository = repository.into();
        // The registry takes no token; what counts here is where one is asked for.
        ask(&client, &asked).await;
    }
    let other = service.recording().all().into_iter().skip(1);
    for request in other {
        assert!(!request.path.contains("app"), "{}", request.path);
    }
}

/// A wrong password that the token service has just refused is not tried again.
#[tokio::test]
async fn a_password_that_has_changed_is_refused_once_per_question() {
    let (registry, _, service) = guarded(TokenOptions {
        expires_in: Some(1),
        ..private()
    });
    let client = client();
    let target = with_auth(&registry.url(), "u", "p:w");
    assert!(is_found(&ask(&client, &target).await));
    service.behave(Behaviour::Status(StatusCode::UNAUTHORIZED));
    let probe = testkit::wait::until("the token has expired", || async {
        let probe = ask(&client, &target).await;
        (!is_found(&probe)).then_some(probe)
    })
    .await;
    assert_eq!(probe.outcome, Outcome::Unauthorized, "{}", probe.detail);
    assert!(probe.detail.contains("token service"), "{}", probe.detail);
    assert_eq!(service.recording().all().len(), 2);
    // The registry asks for no password any more: the token service has no say.
    registry.require_nothing();
    assert!(is_found(&ask(&client, &target).await));
}
