//! The libc symbols by which a Rust program asks the operating system for the time and for randomness. Defined here, they
//! are linked in place of libc's: std (hash seeds, `Instant`, `SystemTime`) and the `getrandom` crate come through. Once the
//! process lives in a simulation they answer from [`gantry_simulation::outside`]; before, they make the system call that
//! libc would have made.
#![allow(unsafe_code)]

use gantry_simulation::outside;
use libc::{c_int, c_long, c_uint, c_void, clockid_t, size_t, ssize_t, timespec};

/// Fills `len` bytes. All of them: callers need not ask again.
///
/// # Safety
/// `buffer` must be valid for writes of `len` bytes, as for the function of libc.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, len: size_t, flags: c_uint) -> ssize_t {
    if !outside::is_closed() {
        // SAFETY: the arguments are passed on as they came.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, len, flags) as ssize_t };
    }
    if len > 0 {
        // SAFETY: the caller promises that the buffer is valid for writes; zeroed first, so that it is initialized.
        let bytes = unsafe {
            std::ptr::write_bytes(buffer.cast::<u8>(), 0, len);
            std::slice::from_raw_parts_mut(buffer.cast::<u8>(), len)
        };
        outside::fill(bytes);
    }
    len as ssize_t
}

/// The same by its other name.
///
/// # Safety
/// As for `getrandom`.
#[unsafe(no_mangle)]
unsafe extern "C" fn getentropy(buffer: *mut c_void, len: size_t) -> c_int {
    // SAFETY: as the caller promises.
    if unsafe { getrandom(buffer, len, 0) } == len as ssize_t { 0 } else { -1 }
}

/// Tells the time of a clock.
///
/// # Safety
/// `time` must be valid for a write, as for the function of libc.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    if !outside::is_closed() {
        // SAFETY: the arguments are passed on as they came.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, c_long::from(clock), time) as c_int };
    }
    let shown = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => outside::wall_clock(),
        _ => outside::uptime(),
    };
    let shown = timespec { tv_sec: shown.as_secs() as libc::time_t, tv_nsec: c_long::from(shown.subsec_nanos()) };
    // SAFETY: the caller promises that it is valid for a write.
    unsafe { time.write(shown) };
    0
}

/// Has the processes that this one starts from now on laid out in memory always the same: some hash functions are seeded
/// with addresses. False: the system does not permit it.
pub(crate) fn fix_addresses() -> bool {
    // SAFETY: a system call with two numbers; it changes how later `execve` calls lay out memory, nothing here.
    unsafe {
        let now = libc::personality(0xffff_ffff);
        now >= 0 && libc::personality((now | libc::ADDR_NO_RANDOMIZE) as libc::c_ulong) >= 0
    }
}
