//! Values that can't work are refused, with words that say which and why.

use crate::world::{template, value_set};

#[test]
fn wrong_values_are_refused_and_named() {
    for (values, option, expected) in [
        // A slip of the pen, at each level.
        (
            "defaults",
            "webhok.enabled=true",
            "additional properties 'webhok' not allowed",
        ),
        (
            "defaults",
            "webhook.replica=3",
            "at '/webhook': additional properties 'replica' not allowed",
        ),
        (
            "defaults",
            "cache.namespace.nam=x",
            "at '/cache/namespace': additional properties 'nam' not allowed",
        ),
        (
            "defaults",
            "webhook.enabled=maybe",
            "at '/webhook/enabled': got string, want boolean",
        ),
        (
            "defaults",
            "webhook.replicas=0",
            "at '/webhook/replicas': minimum: got 0, want 1",
        ),
        (
            "defaults",
            "webhook.timeoutSeconds=31",
            "at '/webhook/timeoutSeconds': maximum",
        ),
        (
            "defaults",
            "webhook.failurePolicy=Deny",
            "at '/webhook/failurePolicy': value must be one of 'Ignore', 'Fail'",
        ),
        (
            "defaults",
            "image.digest=abc",
            "at '/image/digest': 'abc' does not match pattern '^(sha256:[0-9a-f]{64})?$'",
        ),
        (
            "defaults",
            "image.repository=https://a/b",
            "at '/image/repository': 'https://a/b'",
        ),
        (
            "defaults",
            "image.repository=a/b:1.0",
            "at '/image/repository': 'a/b:1.0'",
        ),
        // YAML makes a number of it, and 1.10 would become 1.1.
        (
            "defaults",
            "image.tag=110",
            "at '/image/tag': got number, want string",
        ),
        (
            "defaults",
            "config=text",
            "at '/config': got string, want object",
        ),
        (
            "defaults",
            "webhook.certificate.source=secret",
            "at '/webhook/certificate/existingSecret': minLength: got 0, want 1",
        ),
        (
            "existing-certificate",
            "webhook.certificate.caBundle=LS0t",
            "at '/webhook/certificate/caBundle': 'LS0t' does not match pattern",
        ),
        (
            "defaults",
            "credentials.environment.values.A-B=x",
            "'A-B' does not match pattern '^[A-Za-z_][A-Za-z0-9_]*$'",
        ),
        (
            "defaults",
            "credentials.dockerConfig.registries.host.username=x",
            "at '/credentials/dockerConfig/registries/host': missing property 'password'",
        ),
        (
            "defaults",
            "cache.maxUnavailable=10x",
            "at '/cache/maxUnavailable': '10x' does not match",
        ),
        (
            "node-installer",
            "nodeInstaller.mode=remove",
            "at '/nodeInstaller/mode': value must be one of 'install', 'uninstall'",
        ),
        (
            "node-installer",
            "nodeInstaller.timeout=2 minutes",
            "at '/nodeInstaller/timeout': '2 minutes' does not match pattern",
        ),
        (
            "node-installer",
            "nodeInstaller.prefix=usr/local",
            "at '/nodeInstaller/prefix': 'usr/local' does not match pattern",
        ),
        // What only the templates can see.
        (
            "shared-cache",
            "credentials.environment.existingSecret=mine",
            "credentials.environment: write either existingSecret or values, not both",
        ),
        (
            "everything",
            "credentials.dockerConfig.existingSecret=mine",
            "credentials.dockerConfig: write either existingSecret or registries, not both",
        ),
        (
            "defaults",
            "config.nodeCache.listen[0]=localhost",
            "config.nodeCache.listen: localhost is no address; write it as 127.0.0.1:7439 or [::1]:7439",
        ),
        (
            "defaults",
            "config.nodeCache.metricsAddress=false",
            "config.nodeCache.metricsAddress: write \"off\" in quotes; without them Helm reads it as false",
        ),
    ] {
        let output = template(&value_set(values), &["--set", option]);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{option} was taken");
        assert!(errors.contains(expected), "{option}: {errors}");
        assert!(output.stdout.is_empty(), "{option}");
    }
}
