# the cheap checks, then the tests
check:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    cargo test

fix:
    cargo fmt
    cargo clippy --all-targets --fix --allow-dirty

demo:
    cargo run --release -- demo

# everything that has to hold before a change lands
ci:
    bash .ci/run
