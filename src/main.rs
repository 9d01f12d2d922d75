//! The corehub program: hands over to `cli`. Owns the choice of allocator and nothing else.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {}
