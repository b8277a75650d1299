//! sshd as a daemon, ssh and scp.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};

use crate::world::{Run, World, in_world, wait_until};

const BIG: usize = 10_000_000;

/// Makes keys, and sshd's configuration.
fn prepare(world: &World) {
    for name in ["host", "user"] {
        let path = world.path(name);
        let words = ["-q", "-t", "ed25519", "-N", "", "-f"];
        world.plain("ssh-keygen").args(words).arg(&path).finish().succeeded();
    }
    std::fs::copy(world.path("user.pub"), world.path("authorized")).unwrap();
    let dir = world.path("");
    let dir = dir.display();
    world.file(
        "sshd.conf",
        format!(
            "Port 22\nListenAddress 0.0.0.0\nListenAddress ::\nHostKey {dir}/host\nPidFile {dir}/sshd.pid\n\
             UsePAM no\nUseDNS no\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\n\
             AuthorizedKeysFile {dir}/authorized\nSubsystem sftp internal-sftp\n"
        ),
    );
    if geteuid().is_root() {
        // The world's own: sshd insists on it.
        std::fs::create_dir("/run/sshd").unwrap();
    }
}

/// ssh's options, which scp has as well.
fn options(world: &World) -> Vec<String> {
    let key = world.path("user");
    let mut words = vec!["-F".to_owned(), "none".to_owned(), "-i".to_owned(), key.display().to_string()];
    let settings = [
        "IdentitiesOnly=yes",
        "BatchMode=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "GlobalKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
    ];
    words.extend(settings.iter().flat_map(|setting| ["-o".to_owned(), (*setting).to_owned()]));
    words
}

fn talk<'a>(world: &World, at: &str, client: impl Fn(&str) -> Run<'a>) {
    let user = User::from_uid(geteuid()).unwrap().expect("this user has a name").name;
    let ssh = |command: &str| {
        let place = format!("{user}@{at}");
        client("ssh").args(options(world)).args([place.as_str(), command])
    };
    let said = ssh("echo said; exit 7").finish();
    assert_eq!((said.text().as_str(), said.status.code()), ("said\n", Some(7)), "{said:?}");
    // The login's environment is sshd's to make: what a program there does with the network is the host's affair.
    let big = world.path("big");
    let sum = ssh("cat").input(&big).finish().succeeded();
    assert!(sum.stdout == std::fs::read(&big).unwrap(), "what came back has changed on its way");

    let copy = |from: &str, to: &str| {
        client("scp").args(options(world)).args([from, to]).finish().succeeded();
    };
    let same = |name: &str| {
        let copied = std::fs::read(world.path(name)).unwrap();
        assert!(copied == std::fs::read(&big).unwrap(), "{name} has changed on its way");
    };
    let path = |name: &str| world.path(name).display().to_string();
    let host = if at.contains(':') { format!("[{at}]") } else { at.to_owned() };
    copy(&path("big"), &format!("{user}@{host}:{}", path("there")));
    same("there");
    copy(&format!("{user}@{host}:{}", path("there")), &path("back"));
    same("back");
}

#[test]
fn a_daemon_serves_ssh_and_scp() {
    in_world(|world| {
        prepare(world);
        world.noise("big", BIG);
        for name in ["host", "user"] {
            std::fs::set_permissions(world.path(name), PermissionsExt::from_mode(0o600)).unwrap();
        }
        let (vnl, _switch) = world.switch();
        let server = format!("stack=smoltcp,vnl={vnl},ip=10.0.0.1/24,ip=fd00::1/64");
        let client = format!("stack=smoltcp,vnl={vnl},ip=10.0.0.2/24,ip=fd00::2/64");
        let (config, log) = (world.path("sshd.conf"), world.path("log"));
        let words = [Path::new("-f"), &config, Path::new("-E"), &log];
        // With its whole path: it executes itself for each connection.
        let sshd = world.run_on(&server, "/usr/sbin/sshd").args(words);
        sshd.finish_and_read_to_the_end().succeeded();
        let file = world.path("sshd.pid");
        let pid = || std::fs::read_to_string(&file).ok()?.trim().parse().ok().map(Pid::from_raw);
        wait_until("sshd's pid file", || pid().is_some());
        let pid = pid().unwrap();

        for at in ["10.0.0.1", "fd00::1"] {
            talk(world, at, |program| world.run_on(&client, program));
        }
        world.wait_for_nodes(1);
        kill(pid, Signal::SIGTERM).unwrap();
        world.wait_for_nodes(0);
    });
}
