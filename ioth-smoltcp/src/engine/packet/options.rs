//! Options of level SOL_PACKET.

use ioth_core::{Errno, Result};

use crate::engine::options::{int, put, put_int};
use crate::engine::{Engine, SocketId};

impl Engine {
    /// setsockopt(2).
    ///
    /// # Errors
    /// `EINVAL`, `ENOPROTOOPT` for what is not known, and those of memberships.
    pub(in crate::engine) fn packet_set_option(
        &mut self,
        id: SocketId,
        name: i32,
        value: &[u8],
    ) -> Result<()> {
        match name {
            libc::PACKET_ADD_MEMBERSHIP => return self.packet_join(id, value),
            libc::PACKET_DROP_MEMBERSHIP => return self.packet_leave(id, value),
            _ => {}
        }
        if name == libc::PACKET_AUXDATA {
            self.sockets[id.0].options.report.auxdata = int(value)? != 0;
            return Ok(());
        }
        let packets = self.packets_mut(id)?;
        match name {
            PACKET_ORIGDEV => packets.original_device = int(value)? != 0,
            PACKET_IGNORE_OUTGOING => {
                packets.ignore_outgoing = match int(value)? {
                    on @ (0 | 1) => on == 1,
                    _ => return Err(Errno::EINVAL),
                };
                self.packet_taps();
            }
            // No ring in shared memory (PACKET_VERSION, PACKET_RX_RING): libraries fall back to recvmsg(2).
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    /// getsockopt(2).
    ///
    /// # Errors
    /// `ENOPROTOOPT` for what is not known.
    pub(in crate::engine) fn packet_option(
        &mut self,
        id: SocketId,
        name: i32,
        value: &mut [u8],
    ) -> Result<usize> {
        let auxdata = self.sock(id)?.options.report.auxdata;
        let packets = self.packets_mut(id)?;
        match name {
            libc::PACKET_AUXDATA => Ok(put_int(value, auxdata.into())),
            libc::PACKET_STATISTICS => {
                let dropped = std::mem::take(&mut packets.dropped_frames);
                // packet(7): the first number counts the dropped ones, too; both begin anew when they were read.
                let all = std::mem::take(&mut packets.queued_frames).wrapping_add(dropped);
                Ok(put(value, &[all.to_ne_bytes(), dropped.to_ne_bytes()].concat()))
            }
            PACKET_ORIGDEV => Ok(put_int(value, packets.original_device.into())),
            PACKET_IGNORE_OUTGOING => Ok(put_int(value, packets.ignore_outgoing.into())),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
}

/// linux/if_packet.h; libc lacks these.
const PACKET_ORIGDEV: i32 = 9;
const PACKET_IGNORE_OUTGOING: i32 = 23;
