//! Registries on which anybody may register a name (rule 5).

/// Hosts of public multi-tenant registries. Listed under `registries`, each serves its own images
/// only, unless the entry says otherwise: whoever registers `team/app` there could else feed it to
/// a pod that asked for `ghcr.io/team/app`.
const HOSTS: &[&str] = &[
    "docker.io",
    "ghcr.io",
    "quay.io",
    "gcr.io",
    "asia.gcr.io",
    "eu.gcr.io",
    "us.gcr.io",
    "mirror.gcr.io",
    "k8s.gcr.io",
    "registry.k8s.io",
    "public.ecr.aws",
    "mcr.microsoft.com",
    "registry.gitlab.com",
    "registry.redhat.io",
    "registry.access.redhat.com",
    "registry.connect.redhat.com",
    "docker.elastic.co",
    "nvcr.io",
    "lscr.io",
    "xpkg.upbound.io",
    "cgr.dev",
    "ttl.sh",
    "registry.opensuse.org",
    "registry.suse.com",
    "registry.fedoraproject.org",
    "container-registry.oracle.com",
    "icr.io",
    "registry.hub.docker.com",
    "registry.digitalocean.com",
    "docker.pkg.github.com",
    "containers.pkg.github.com",
    "codeberg.org",
    "gitea.com",
    "registry.heroku.com",
];

/// Suffixes of services where the first path segment is the tenant: with a path, an address there is
/// one tenant's own.
const SUFFIXES: &[&str] = &[".pkg.dev", ".gcr.io"];

/// Whether anybody can register a name at `host` (without port) below `path`.
pub(crate) fn is_public(host: &str, path: &str) -> bool {
    HOSTS.contains(&host)
        || (path.is_empty() && SUFFIXES.iter().any(|suffix| host.ends_with(suffix)))
}
