//! `docs/KERNELS.md` is generated and up to date.

use firelight_kernels::{KERNELS, harness::kernels_markdown};

#[test]
fn the_kernel_table_is_up_to_date() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/KERNELS.md");
    let text = kernels_markdown(KERNELS);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &text).expect("writing the table");
    }
    // A packaged crate travels without the workspace's docs.
    let Ok(there) = std::fs::read_to_string(&path) else {
        return;
    };
    assert_eq!(
        there, text,
        "run: UPDATE_DOCS=1 cargo test -p firelight-kernels --test docs"
    );
}
