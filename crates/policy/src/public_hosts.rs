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
    "registry.jihulab.com",
    "dhi.io",
];

/// Hosts of services where the first path segment is the tenant, by how their names begin and end: with a path, an
/// address there is one tenant's own. Services that give each tenant a host are no matter of this rule:
/// `<id>.<region>.personal.cr.aliyuncs.com` and `<name>-registry.<region>.cr.aliyuncs.com`,
/// `<name>.tencentcloudcr.com`, `<name>.swr-pro.myhuaweicloud.com`, `<name>.cr.volces.com`, `<name>.azurecr.io`.
const SHARED: &[(&str, &str)] = &[
    ("", ".pkg.dev"),
    ("", ".gcr.io"),
    // IBM.
    ("", ".icr.io"),
    // Oracle.
    ("", ".ocir.io"),
    ("ocir.", ".oraclecloud.com"),
    // Scaleway, Vultr, Yandex, Selectel.
    ("rg.", ".scw.cloud"),
    ("", ".vultrcr.com"),
    ("cr.yandex", ""),
    ("cr.selcloud.ru", ""),
    // Alibaba; also `registry-vpc.` and `registry-internal.`.
    ("registry.", ".aliyuncs.com"),
    ("registry.aliyuncs.com", ""),
    ("registry-vpc.", ".aliyuncs.com"),
    ("registry-internal.", ".aliyuncs.com"),
    ("registry-intl.", ".aliyuncs.com"),
    ("registry-intl-vpc.", ".aliyuncs.com"),
    ("registry-intl-internal.", ".aliyuncs.com"),
    // Tencent: one per region, such as `ccr.` and `hkccr.`.
    ("", "ccr.ccs.tencentyun.com"),
    ("docker.cnb.cool", ""),
    // Huawei.
    ("swr.", ".myhuaweicloud.com"),
    ("swr.", ".myhuaweicloud.eu"),
    // Baidu, Kingsoft, NetEase, QingCloud, UCloud, China Mobile.
    ("registry.baidubce.com", ""),
    ("hub.baidubce.com", ""),
    ("hub.kce.ksyun.com", ""),
    ("hub.c.163.com", ""),
    ("dockerhub.qingcloud.com", ""),
    ("uhub.service.ucloud.cn", ""),
    ("cis-hub-", ".cmecloud.cn"),
    ("docker.cloudsmith.io", ""),
    ("registry.fly.io", ""),
];

/// Public mirrors of one registry that people use, by how their names end, with the registry.
const MIRRORS: &[(&str, &str)] = &[
    ("mirror.gcr.io", "docker.io"),
    ("docker.m.daocloud.io", "docker.io"),
    ("gcr.m.daocloud.io", "gcr.io"),
    ("ghcr.m.daocloud.io", "ghcr.io"),
    ("quay.m.daocloud.io", "quay.io"),
    ("k8s.m.daocloud.io", "registry.k8s.io"),
    ("mcr.m.daocloud.io", "mcr.microsoft.com"),
    ("nvcr.m.daocloud.io", "nvcr.io"),
    ("elastic.m.daocloud.io", "docker.elastic.co"),
    ("dockerhub.azk8s.cn", "docker.io"),
    ("gcr.azk8s.cn", "gcr.io"),
    ("quay.azk8s.cn", "quay.io"),
    ("docker.mirrors.ustc.edu.cn", "docker.io"),
    ("docker.nju.edu.cn", "docker.io"),
    ("ghcr.nju.edu.cn", "ghcr.io"),
    ("quay.nju.edu.cn", "quay.io"),
    ("mirror.ccs.tencentyun.com", "docker.io"),
    ("mirror.baidubce.com", "docker.io"),
    // Each customer has one.
    (".mirror.aliyuncs.com", "docker.io"),
    (".mirror.swr.myhuaweicloud.com", "docker.io"),
    ("registry.docker-cn.com", "docker.io"),
    ("hub-mirror.c.163.com", "docker.io"),
    ("dockerproxy.com", "docker.io"),
    ("dockerproxy.net", "docker.io"),
    ("docker.1panel.live", "docker.io"),
    ("docker.1ms.run", "docker.io"),
    ("docker.xuanyuan.me", "docker.io"),
    ("hub.rat.dev", "docker.io"),
];

/// Whether anybody can register a name at `host` (without port) below `path`.
pub(crate) fn is_public(host: &str, path: &str) -> bool {
    HOSTS.contains(&host) || (path.is_empty() && is_shared(host))
}

fn is_shared(host: &str) -> bool {
    let is_one = |(start, end): &(&str, &str)| {
        let rest = host.strip_prefix(start);
        let between = rest.and_then(|rest| rest.strip_suffix(end));
        // Without an end, the name is whole.
        between.is_some_and(|between| !end.is_empty() || between.is_empty())
    };
    SHARED.iter().any(is_one) && !host.ends_with(".cr.aliyuncs.com")
}

/// The registry that is mirrored at `host`, where that is known.
pub(crate) fn mirrored_at(host: &str) -> Option<&'static str> {
    let is_it = |name: &str| match name.starts_with('.') {
        true => host.ends_with(name),
        false => host == name,
    };
    let known = MIRRORS.iter().find(|(name, _)| is_it(name));
    known.map(|(_, mirrored)| *mirrored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_of_one_host_are_told_from_hosts_of_one_tenant() {
        for shared in [
            "europe-docker.pkg.dev",
            "us.icr.io",
            "fra.ocir.io",
            "ocir.eu-frankfurt-1.oci.oraclecloud.com",
            "rg.fr-par.scw.cloud",
            "ewr.vultrcr.com",
            "cr.yandex",
            "registry.aliyuncs.com",
            "registry.cn-hangzhou.aliyuncs.com",
            "registry-vpc.cn-hangzhou.aliyuncs.com",
            "registry-intl.ap-southeast-1.aliyuncs.com",
            "ccr.ccs.tencentyun.com",
            "hkccr.ccs.tencentyun.com",
            "swr.cn-north-4.myhuaweicloud.com",
            "cis-hub-huadong-4.cmecloud.cn",
            "uhub.service.ucloud.cn",
        ] {
            assert!(is_public(shared, ""), "{shared}");
            assert!(!is_public(shared, "tenant"), "{shared}");
        }
        for own in [
            "acme-registry.cn-hangzhou.cr.aliyuncs.com",
            "registry-registry-vpc.cn-hangzhou.cr.aliyuncs.com",
            "crpi-925djdtsud86yqkr.cn-hangzhou.personal.cr.aliyuncs.com",
            "acme.tencentcloudcr.com",
            "docker-cdv5ju.swr-pro.myhuaweicloud.com",
            "acme-cn-beijing.cr.volces.com",
            "acme.azurecr.io",
            "registry.acme.com",
            "cr.yandex.acme.com",
            "my-cr.yandex",
            "xcr.yandex",
        ] {
            assert!(!is_public(own, ""), "{own}");
        }
        // Whoever has a path there is not told from the others.
        assert!(is_public("docker.io", "team"));
    }

    #[test]
    fn mirrors_that_people_use_are_known() {
        for (host, mirrored) in [
            ("docker.m.daocloud.io", Some("docker.io")),
            ("ghcr.m.daocloud.io", Some("ghcr.io")),
            ("5wxalzzb.mirror.aliyuncs.com", Some("docker.io")),
            ("mirror.aliyuncs.com", None),
            // By whole names: it has images of many registries, by their hosts.
            ("m.daocloud.io", None),
            ("x.docker.m.daocloud.io", None),
            ("harbor.corp", None),
        ] {
            assert_eq!(mirrored_at(host), mirrored, "{host}");
        }
    }
}
