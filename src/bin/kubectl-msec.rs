//! The kubectl plugin; everything happens in [`managed_secrets::cli::msec`].

use std::alloc::System;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// Wipes freed memory: buffers of the HTTP, TLS and JSON layers hold values, too.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    managed_secrets::cli::msec::main(std::env::args_os())
}
