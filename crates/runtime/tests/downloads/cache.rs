//! What stays on disk: noticed when it changes, repaired, verified, removed.
#[cfg(unix)]
use super::package::{Shop, catalogue, pip, wheel};
use super::*;
use firelight_runtime::source::{FileCheck, FileState};

fn verify(resolver: &Resolver, model: &str) -> Vec<FileCheck> {
    let mut done = 0;
    let checks = resolver.verify(model, &mut |e| done = e.bytes_done, &CancelToken::new());
    let checks = checks.unwrap();
    if checks.iter().all(|c| c.state == FileState::Sound) {
        assert!(done > 0);
    }
    checks
}

#[cfg(unix)]
#[test]
fn a_damaged_file_is_fetched_again() {
    let (shop, content) = (Shop::new(), noise(1, 100_000));
    shop.stock("p==1.0.whl", &wheel(&[("p/m.gguf", &content)]));
    let resolver = shop.resolver(&catalogue(&content, &pip("p", content.len())));
    let path = get(&resolver, "m").unwrap().root;
    assert!(
        verify(&resolver, "m")
            .iter()
            .all(|c| c.state == FileState::Sound)
    );
    let mut flipped = content.clone();
    flipped[50_000] ^= 4;

    // Another time or length is noticed without a word.
    std::fs::write(&path, &flipped).unwrap();
    assert!(!resolver.list()[0].cached);
    get(&resolver, "m").unwrap();
    assert_eq!((read(&path), shop.calls().len()), (content.clone(), 2));
    std::fs::write(&path, &content[..7]).unwrap();
    get(&resolver, "m").unwrap();
    assert_eq!((read(&path), shop.calls().len()), (content.clone(), 3));
    std::fs::remove_file(&path).unwrap();
    get(&resolver, "m").unwrap();
    assert_eq!((read(&path), shop.calls().len()), (content.clone(), 4));

    // A bit that rots keeps the time: the hash tells.
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, &flipped).unwrap();
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    assert!(resolver.list()[0].cached);
    let checks = verify(&resolver, "m");
    let FileState::Corrupt { reason } = &checks[0].state else {
        panic!("{checks:?}")
    };
    assert!(reason.contains(&sha256(&flipped)), "{reason}");
    assert!(!path.exists());
    assert_eq!(verify(&resolver, "m")[0].state, FileState::Missing);
    get(&resolver, "m").unwrap();
    assert_eq!(read(&path), content);

    // A right file without a record (copied from elsewhere) is hashed, not fetched.
    let calls = shop.calls().len();
    std::fs::remove_file(shop.home.path("cache/models/m/.firelight.json")).unwrap();
    get(&resolver, "m").unwrap();
    assert_eq!(shop.calls().len(), calls);
    assert!(resolver.list()[0].cached);

    assert!(resolver.remove("m").unwrap() >= 100_000);
    assert!(!path.exists());
    assert_eq!(resolver.remove("m").unwrap(), 0);
    assert_eq!(shop.home.files("cache"), ["locks/m.lock"]);
}

#[test]
fn paths_are_used_as_they_are() {
    let home = Home::new();
    let resolver = Resolver::new(home.options("http://127.0.0.1:9"));
    let file = home.path("x.gguf");
    std::fs::write(&file, "GGUF").unwrap();
    let model = get(&resolver, file.to_str().unwrap()).unwrap();
    assert_eq!((model.root, model.name.as_str()), (file.clone(), "x.gguf"));
    assert_eq!(model.sha256, [None]);
    let folder = get(&resolver, home.path("").to_str().unwrap()).unwrap();
    assert_eq!(folder.files, std::slice::from_ref(&file));
    let e = get(&resolver, home.path("y.gguf").to_str().unwrap()).unwrap_err();
    assert!(
        matches!(e, Error::NotFound { .. }) && e.to_string().contains("y.gguf"),
        "{e}"
    );
    std::fs::create_dir(home.path("empty")).unwrap();
    assert!(get(&resolver, home.path("empty").to_str().unwrap()).is_err());
    let checks = resolver.verify(file.to_str().unwrap(), &mut |_| (), &CancelToken::new());
    assert_eq!(checks.unwrap()[0].state, FileState::NoHash);
    assert!(matches!(
        resolver.remove(file.to_str().unwrap()),
        Err(Error::InvalidInput { .. })
    ));
    assert!(file.exists());
}

#[test]
fn a_corrupt_hub_file_is_found_and_fetched_again() {
    let home = Home::new();
    let pair = server::Pair::good(hub::repository());
    let resolver = Resolver::new(home.options(&pair.hub.url));
    assert_eq!(verify(&resolver, "hf:o/r")[0].state, FileState::Missing);
    let model = get(&resolver, "hf:o/r").unwrap();
    let states = verify(&resolver, "hf:o/r")
        .into_iter()
        .map(|c| c.state)
        .collect::<Vec<_>>();
    // git's own hash of the small files is not ours to compute.
    assert_eq!(states.iter().filter(|s| **s == FileState::Sound).count(), 1);
    assert_eq!(
        states.iter().filter(|s| **s == FileState::NoHash).count(),
        3
    );
    let weights = model.root.join("model.safetensors");
    std::fs::write(&weights, noise(99, 3_000_001)).unwrap();
    let checks = verify(&resolver, "hf:o/r");
    assert!(
        checks
            .iter()
            .any(|c| matches!(c.state, FileState::Corrupt { .. })),
        "{checks:?}"
    );
    get(&resolver, "hf:o/r").unwrap();
    assert_eq!(read(weights), noise(1, 3_000_001));
}
