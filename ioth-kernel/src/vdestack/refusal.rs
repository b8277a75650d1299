//! Why a host refuses namespaces, in words that say what to do about it.

use ioth_core::Errno;

/// Reasons for an errno of clone(2) with `CLONE_NEWUSER` and of unshare(2) with `CLONE_NEWNET`, and their remedies; begins with a blank, if there is
/// something to say.
pub(crate) fn why(errno: Errno) -> String {
    explain(errno, |name| std::fs::read_to_string(format!("/proc/sys/{name}")).ok())
}

/// `setting` gives the value of a name in /proc/sys.
fn explain(errno: Errno, setting: impl Fn(&str) -> Option<String>) -> String {
    let number = |name: &str| setting(name).and_then(|value| value.trim().parse::<u64>().ok());
    let why = match errno {
        Errno::EPERM | Errno::EACCES => {
            if number("kernel/unprivileged_userns_clone") == Some(0) {
                "kernel.unprivileged_userns_clone=0 leaves user namespaces to root; \
                 as root: sysctl -w kernel.unprivileged_userns_clone=1"
            } else if number("kernel/apparmor_restrict_unprivileged_userns").is_some_and(|value| value != 0) {
                "kernel.apparmor_restrict_unprivileged_userns=1: AppArmor wants a profile of the program that allows them; \
                 as root: a profile with the rule \"userns,\" in /etc/apparmor.d, or \
                 sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
            } else {
                "a container's filter forbids user namespaces, or the program is in a chroot or has a user id that is not \
                 mapped; docker run --security-opt seccomp=unconfined allows them"
            }
        }
        // EUSERS: before Linux 4.9.
        Errno::ENOSPC | Errno::EUSERS => {
            if number("user/max_user_namespaces") == Some(0) {
                "user.max_user_namespaces=0 allows none; as root: sysctl -w user.max_user_namespaces=15000"
            } else if number("user/max_net_namespaces") == Some(0) {
                "user.max_net_namespaces=0 allows none; as root: sysctl -w user.max_net_namespaces=15000"
            } else {
                "no more are allowed: as root raise user.max_user_namespaces and user.max_net_namespaces with sysctl -w; \
                 user namespaces are nested 32 times at most"
            }
        }
        Errno::EINVAL => "the kernel was built without CONFIG_USER_NS or CONFIG_NET_NS",
        Errno::EAGAIN => "no more processes are allowed: raise RLIMIT_NPROC, with ulimit -u",
        _ => return String::new(),
    };
    format!(" ({why}; stack=smoltcp needs none of this)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_and_its_remedy() {
        let told = |errno, name: &str, value: &str| {
            explain(errno, |asked| (asked == name).then(|| format!("{value}\n")))
        };
        for (errno, name, value, remedy) in [
            (Errno::EPERM, "kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
            (Errno::EPERM, "kernel/apparmor_restrict_unprivileged_userns", "1", "\"userns,\""),
            (Errno::EACCES, "kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor"),
            (Errno::EPERM, "kernel/unprivileged_userns_clone", "1", "seccomp=unconfined"),
            (Errno::EPERM, "kernel/unprivileged_userns_clone", "garbage", "chroot"),
            (Errno::ENOSPC, "user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
            (Errno::ENOSPC, "user/max_net_namespaces", "0", "sysctl -w user.max_net_namespaces=15000"),
            (Errno::ENOSPC, "user/max_user_namespaces", "7", "32 times"),
            (Errno::EUSERS, "", "", "raise"),
            (Errno::EINVAL, "", "", "CONFIG_USER_NS"),
            (Errno::EAGAIN, "", "", "RLIMIT_NPROC"),
        ] {
            let told = told(errno, name, value);
            assert!(told.starts_with(" (") && told.contains(remedy), "{errno}, {name}={value}: {told}");
        }
        assert_eq!(told(Errno::ENOMEM, "", ""), "");
    }
}
