//! Level IPPROTO_UDP: udp(7).

use ioth_core::{Errno, Result};

use super::{int, put_int};
use crate::engine::{Engine, SocketId};

impl Engine {
    pub(super) fn set_udp_option(&mut self, id: SocketId, name: i32, value: &[u8]) -> Result<()> {
        let on = int(value)? != 0;
        match name {
            libc::UDP_CORK => self.sockets[id.0].options.udp_cork = on,
            _ => return Err(Errno::ENOPROTOOPT),
        }
        if !on {
            // Linux does not tell what became of it either.
            let _ = self.udp_uncork(id);
        }
        Ok(())
    }

    pub(super) fn udp_option(&mut self, id: SocketId, name: i32, value: &mut [u8]) -> Result<usize> {
        match name {
            libc::UDP_CORK => Ok(put_int(value, i32::from(self.sock(id)?.options.udp_cork))),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
}
