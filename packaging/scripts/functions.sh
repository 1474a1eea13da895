# What the scripts of both kinds of packages do. None of it changes kubelet: only `image-cri-shim install` leads it to
# the shim, and only `image-cri-shim uninstall` leads it back.

say() {
    echo "image-cri-shim: $*" >&2
}

systemd_runs() {
    [ -d /run/systemd/system ]
}

# Whether services may be started. Builders of images forbid it.
may_start() {
    systemd_runs || return 1
    [ -x /usr/sbin/policy-rc.d ] || return 0
    allowed=0
    /usr/sbin/policy-rc.d image-cri-shim.service start || allowed=$?
    # "Allowed" and "allowed, but otherwise", as Debian's policy has them.
    [ "$allowed" = 0 ] || [ "$allowed" = 104 ]
}

# A unit of the same name in /etc would win over the package's, and start the package's program in its own way.
refuse_other_units() {
    unit=/etc/systemd/system/image-cri-shim.service
    # A link is how systemd masks a unit.
    if [ ! -f "$unit" ] || [ -L "$unit" ]; then
        return 0
    fi
    if [ -d /var/lib/image-cri-shim/install ]; then
        say "this node has image-cri-shim from its archive. Run \`image-cri-shim uninstall\` first, then install the package"
    else
        say "$unit is there already: the Go program of the same name, or a unit that somebody wrote. \
Lead kubelet back to its runtime and remove that unit first. Or leave the package, and run \`image-cri-shim install\` \
from the archive, which takes the Go program's place"
    fi
    exit 1
}

# A config that routes nothing, as `image-cri-shim install` writes it, where there is none: a shim without one hands over to
# no other. Not where one was lost: the site may be one that must not be opened.
new_config() {
    if [ -e /etc/image-cri-shim.yaml ] || [ -L /etc/image-cri-shim.yaml ] || [ -e /var/lib/image-cri-shim/last-good.yaml ]; then
        return 0
    fi
    (
        umask 077
        cat >/etc/image-cri-shim.yaml <<'END'
# Where this node's images come from. docs/rules.md has the rules, examples/ has complete configs.
# Nothing is routed until a registry or a redirect stands here.
registries: []
END
    )
}

# The config, the cache's user, and the link that kubelet dials, where they are not there yet.
prepare() {
    new_config
    systemd-sysusers image-cri-shim-cache.conf || say "the user of the cache could not be made; see above"
    if systemd_runs; then
        systemctl daemon-reload
        systemd-tmpfiles --create image-cri-shim.conf
    fi
}

# What is enabled and does not run.
start_units() {
    may_start || return 0
    for unit in image-cri-shim-bypass.socket image-cri-shim.service; do
        if systemctl is-enabled --quiet "$unit" && ! systemctl is-active --quiet "$unit"; then
            systemctl start "$unit" || say "$unit does not start, so kubelet goes past the shim: journalctl -u $unit"
        fi
    done
}

# A shim that runs hands over to the new one, and is not started anew: it serves until the new one does. The bypass is
# left alone, since what goes through it would be cut.
hand_over() {
    may_start || return 0
    if systemctl is-active --quiet image-cri-shim.service; then
        systemctl reload image-cri-shim.service ||
            say "the new shim did not take over, so the old one serves on. \`journalctl -u image-cri-shim\` says why; \
\`systemctl restart image-cri-shim\` starts the new one, and kubelet goes past the shim meanwhile"
    fi
    systemctl try-restart image-cri-shim-cache.service || say "the cache does not start: journalctl -u image-cri-shim-cache"
}

# Where kubelet is told to dial the shim, one place a line. Comments do not count.
told() {
    grep -rnsI 'image-cri-shim[.]sock' /etc/default/kubelet /etc/sysconfig/kubelet /etc/conf.d/kubelet \
        /etc/kubernetes /etc/rancher /etc/k0s /etc/systemd/system /run/systemd/system \
        /usr/lib/systemd/system/kubelet.service /usr/lib/systemd/system/kubelet.service.d \
        /var/lib/kubelet/config.yaml /var/lib/kubelet/instance-config.yaml /var/lib/kubelet/kubeadm-flags.env |
        grep -v '^[^:]*:[0-9]*:[[:space:]]*#' | cut -d: -f1,2
    # Arguments of processes; the whole of one, so that a shell whose text names the socket does not count.
    grep -lzsE '^(-[^ ]*=)?(unix://)?/(var/)?run/image-cri-shim[.]sock$' /proc/[0-9]*/cmdline || true
}

# Whether somebody stays connected to the shim or to its bypass, as kubelet does; others call once and go.
is_dialed() {
    tries=15
    while [ "$tries" -gt 0 ]; do
        # unix(7): state 3 is connected.
        grep -qs ' 03 [0-9 ]*/run/image-cri-shim/\(shim\|bypass\)[.]sock$' /proc/net/unix || return 1
        tries=$((tries - 1))
        sleep 0.2
    done
}

# Before anything is removed. Fails, and with it the removal, where kubelet would be left dialing nothing.
lead_kubelet_back() {
    if [ -d /var/lib/image-cri-shim/install ]; then
        # Another name of /, which is taken for a tree without services.
        root=/etc/..
        if systemd_runs; then root=/; fi
        if ! image-cri-shim uninstall --root "$root"; then
            say "the package stays: kubelet may still dial the shim"
            exit 1
        fi
    fi
    places=$(told)
    if [ -n "$places" ]; then
        say "the package stays: kubelet is told to dial the shim by hand, at" $places
        say "take that out, restart kubelet, and remove the package again"
        exit 1
    fi
    if systemd_runs && is_dialed; then
        say "the package stays: something is connected to /run/image-cri-shim.sock, as kubelet is. Restart it, and remove the package again"
        exit 1
    fi
}

stop_units() {
    if systemd_runs; then
        systemctl stop image-cri-shim.service image-cri-shim-link.service image-cri-shim-bypass.socket \
            image-cri-shim-bypass.service image-cri-shim-cache.service
    fi
}

# After the package's files are gone.
removed() {
    rm -f /run/image-cri-shim.sock /run/image-cri-shim-cache.sock
    rm -rf /run/image-cri-shim
    if systemd_runs; then
        systemctl daemon-reload
    fi
}
