//! What signals do to calls that wait (signal(7), "Interruption of system calls and library functions by signal handlers").

use crate::sys;

/// Whether a wait without a time-out goes on after each handler of a signal that the program has (SA_RESTART).
///
/// For waits by ppoll(2), which is never begun again and does not tell which handler has run. One handler that does not say so
/// counts: who has such a one expects `EINTR`.
pub fn handlers_restart() -> bool {
    sys::handlers_restart()
}
