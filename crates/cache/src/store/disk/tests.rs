use super::*;
use crate::store::conformance;

#[tokio::test]
async fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::check(&Disk::open(dir.path()).unwrap()).await;
}

#[test]
fn a_directory_has_one_owner_and_is_swept_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let digest = Digest::of(b"growing");
    {
        let disk = Disk::open(dir.path()).unwrap();
        assert!(Disk::open(dir.path()).is_err());
        let file = disk.open_partial(&digest).unwrap();
        disk.write_partial(&file, b"grow", 0).unwrap();
        disk.save_partial(&digest, &file, &[(0, 4)]).unwrap();
        fs::write(dir.path().join("partial/new.7"), b"left over").unwrap();
    }
    let disk = Disk::open(dir.path()).unwrap();
    assert!(!dir.path().join("partial/new.7").exists());
    assert_eq!(disk.noted_ranges(&digest), [(0, 4)]);
    let file = disk.open_partial(&digest).unwrap();
    disk.write_partial(&file, b"ing", 4).unwrap();
    disk.commit_partial(&digest, &file).unwrap();
    let content = disk.read_small(&digest, 100).unwrap().unwrap();
    assert_eq!(content, "growing");
    assert!(disk.partials().is_empty());
}

#[test]
fn a_failing_disk_leaves_nothing_visible() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path()).unwrap();
    let digest = Digest::of(b"x");
    disk.set_fault(Some(rustix::io::Errno::IO.raw_os_error()));
    assert!(disk.write_small(&digest, b"x").is_err());
    assert!(disk.open_blob(&digest).unwrap().is_none());
    disk.set_fault(None);
    disk.write_small(&digest, b"x").unwrap();
    assert!(disk.open_blob(&digest).unwrap().is_some());
}

#[test]
fn images_are_for_no_other_user_to_read() {
    let dir = tempfile::tempdir().unwrap();
    // As kubelet or an older version has made it.
    fs::create_dir(dir.path().join("blobs")).unwrap();
    fs::set_permissions(dir.path().join("blobs"), Permissions::from_mode(0o755)).unwrap();
    let _disk = Disk::open(dir.path()).unwrap();
    for private in ["blobs", "partial"] {
        let metadata = fs::metadata(dir.path().join(private)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o700, "{private}");
    }
}
