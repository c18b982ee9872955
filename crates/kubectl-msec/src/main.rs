//! The kubectl plugin; everything happens in [`kubectl_msec`].

use std::alloc::System;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// Wipes freed memory: buffers of the HTTP, TLS and JSON layers hold values, too.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    kubectl_msec::main(std::env::args_os())
}
