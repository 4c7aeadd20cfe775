//! The bundle that a container is made of.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxBuilder, Mount, MountBuilder, ProcessBuilder, RootBuilder, SpecBuilder, get_default_mounts,
};

/// What the host's programs need.
const PROGRAMS: &[&str] = &["/usr", "/bin", "/lib", "/lib64"];

/// Writes a bundle whose process sleeps. It has the host's programs, read-only, and nothing else.
pub fn write(bundle: &Path, control_group: PathBuf) {
    let programs = PROGRAMS.iter().map(Path::new).filter(|path| path.exists());
    // The host's control groups are of no use in there, and version 1 cannot always be had.
    let usual =
        get_default_mounts().into_iter().filter(|mount| mount.destination() != "/sys/fs/cgroup");
    let process = ProcessBuilder::default().args(["sleep".to_owned(), "1000".to_owned()]);
    let linux = LinuxBuilder::default().cgroups_path(control_group);
    let spec = SpecBuilder::default()
        .root(RootBuilder::default().path("rootfs").readonly(true).build().unwrap())
        .mounts(usual.chain(programs.map(read_only)).collect::<Vec<_>>())
        .process(process.build().unwrap())
        .linux(linux.build().unwrap())
        .build()
        .unwrap();
    fs::create_dir_all(bundle.join("rootfs")).unwrap();
    spec.save(bundle.join("config.json")).unwrap();
}

fn read_only(path: &Path) -> Mount {
    MountBuilder::default()
        .destination(path)
        .source(path)
        .typ("bind")
        .options(["bind".to_owned(), "ro".to_owned()])
        .build()
        .unwrap()
}
