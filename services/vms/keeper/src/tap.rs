//! A TAP's descriptor for a VMM that asks for its TAP by name.
//!
//! Such a VMM opens `/dev/net/tun` and asks the kernel to make what it opened the TAP of a name (`TUNSETIFF`). A filter
//! stops that one call and has it answered here (seccomp_unotify(2)): the TAP that the keeper was given takes the place
//! of what the VMM opened, which may be anything. So the VMM needs neither the TAP's network nor a right over it.
//!
//! The filter is no wall. Whoever gets around it has asked what it opened itself, and gets what the kernel says to that.
#![allow(unsafe_code, reason = "seccomp's calls take pointers; nix generates unsafe functions for its ioctls")]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use banger_schemas::io::packet::readable;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::prctl;
use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::fds;

/// linux/if_tun.h: `_IOW('T', 202, int)`.
const TUNSETIFF: u32 = nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()) as u32;

// linux/seccomp.h: SECCOMP_IOCTL_NOTIF_RECV, _SEND and _ADDFD.
nix::ioctl_readwrite!(receive, b'!', 0, libc::seccomp_notif);
nix::ioctl_readwrite!(answer, b'!', 1, libc::seccomp_notif_resp);
nix::ioctl_write_ptr!(put_descriptor, b'!', 3, libc::seccomp_notif_addfd);

/// Of `struct seccomp_data`, linux/seccomp.h: the call's number, and the lower half of its second argument.
const NUMBER: u32 = 0;
const REQUEST: u32 = 24;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const UNLESS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// `ioctl(_, TUNSETIFF, _)` is for us to answer, everything else goes on.
const FILTER: [libc::sock_filter; 6] = [
    libc::sock_filter { code: LOAD, jt: 0, jf: 0, k: NUMBER },
    libc::sock_filter { code: UNLESS, jt: 0, jf: 3, k: libc::SYS_ioctl as u32 },
    libc::sock_filter { code: LOAD, jt: 0, jf: 0, k: REQUEST },
    libc::sock_filter { code: UNLESS, jt: 0, jf: 1, k: TUNSETIFF },
    libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_USER_NOTIF },
    libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
];

/// The keeper's half: a TAP to be asked for once.
#[derive(Debug)]
pub(crate) struct Offer {
    tap: OwnedFd,
    from_vmm: OwnedFd,
}

/// The VMM's half, before it is the VMM.
#[derive(Debug)]
pub(crate) struct Gate {
    to_keeper: OwnedFd,
}

/// Prepares to hand this TAP out.
pub(crate) fn offer(tap: OwnedFd) -> io::Result<(Offer, Gate)> {
    // As a VMM opens it; who sends a TAP does not.
    let flags = OFlag::from_bits_retain(fcntl(&tap, FcntlArg::F_GETFL)?);
    fcntl(&tap, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let (from_vmm, to_keeper) =
        socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    Ok((Offer { tap, from_vmm }, Gate { to_keeper }))
}

impl Gate {
    /// From here on the question is the keeper's to answer. Between fork and exec: only system calls.
    pub(crate) fn set_up(&self) -> io::Result<()> {
        prctl::set_no_new_privs()?;
        let listener = install()?;
        let fds = [listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        message.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(&self.to_keeper, &[IoSlice::new(b".")], &mut message, SendFlags::empty())?;
        Ok(())
    }
}

/// Puts the filter on this thread; what its questions come out of.
fn install() -> io::Result<OwnedFd> {
    let program = libc::sock_fprog { len: FILTER.len() as u16, filter: FILTER.as_ptr().cast_mut() };
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // SAFETY: the kernel reads the program, which lives over the call.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    match RawFd::try_from(fd) {
        // SAFETY: the call has just opened it.
        Ok(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Offer {
    /// Waits for the VMM, which has started, to ask for its TAP, and gives it. Done as well when it never will.
    pub(crate) async fn hand_over(self) -> io::Result<()> {
        let listener = self.listener()?;
        readable(listener.try_clone()?).await?;
        // The end of the VMM is no question, and waiting for one would take for ever.
        if fds::hung_up(&listener) { Ok(()) } else { give(&listener, &self.tap) }
    }

    fn listener(&self) -> io::Result<OwnedFd> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut message = RecvAncillaryBuffer::new(&mut space);
        recvmsg(&self.from_vmm, &mut [IoSliceMut::new(&mut [0])], &mut message, RecvFlags::CMSG_CLOEXEC)?;
        let fd = message.drain().find_map(|part| match part {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        fd.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Answers the question that is there.
fn give(listener: &OwnedFd, tap: &OwnedFd) -> io::Result<()> {
    // SAFETY: a struct of numbers, for which zeroes are values; the kernel wants them.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the kernel writes one whole struct.
    unsafe { receive(listener.as_raw_fd(), &raw mut asked) }?;
    let gift = libc::seccomp_notif_addfd {
        id: asked.id,
        flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
        srcfd: tap.as_raw_fd().cast_unsigned(),
        // What it asked with is what it goes on with.
        newfd: asked.data.args[0] as u32,
        newfd_flags: libc::O_CLOEXEC.cast_unsigned(),
    };
    // SAFETY: the descriptor is open, and the kernel reads one whole struct.
    unsafe { put_descriptor(listener.as_raw_fd(), &raw const gift) }?;
    let mut done = libc::seccomp_notif_resp { id: asked.id, val: 0, error: 0, flags: 0 };
    // SAFETY: the same.
    unsafe { answer(listener.as_raw_fd(), &raw mut done) }?;
    Ok(())
}
