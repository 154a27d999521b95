"""Calls a method that takes open files, which busctl(1) cannot. Arguments: service, path, interface, method, signature,
then a value for each "s"; each "h" is /dev/null, each "a{sv}" is empty. Answers as busctl does."""
import array
import os
import socket
import struct
import sys


def pad(data, to):
    return data + b"\0" * (-len(data) % to)


def text(value):
    return struct.pack("<I", len(value.encode())) + value.encode() + b"\0"


def field(code, kind, value):
    return struct.pack("BB", code, 1) + kind.encode() + b"\0" + value


def message(serial, fields, body=b""):
    header = b""
    for one in fields:
        header = pad(header, 8) + one
    return pad(struct.pack("<cBBBIII", b"l", 1, 0, 1, len(body), serial, len(header)) + header, 8) + body


def call(serial, service, path, interface, method, *more, body=b""):
    names = [field(1, "o", text(path)), field(2, "s", text(interface)), field(3, "s", text(method))]
    return message(serial, names + [field(6, "s", text(service)), *more], body)


service, path, interface, method, signature, *values = sys.argv[1:]
body, files, rest = b"", 0, signature
while rest:
    if rest[0] == "s":
        body = pad(body, 4) + text(values.pop(0))
        rest = rest[1:]
    elif rest[0] == "h":
        body = pad(body, 4) + struct.pack("<I", files)
        files, rest = files + 1, rest[1:]
    else:
        assert rest.startswith("a{sv}"), rest
        body = pad(pad(body, 4) + struct.pack("<I", 0), 8)
        rest = rest[5:]

bus = socket.socket(socket.AF_UNIX)
bus.connect("/run/dbus/system_bus_socket")
bus.settimeout(30)
bus.sendall(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")
assert bus.recv(512).startswith(b"OK")
bus.sendall(b"NEGOTIATE_UNIX_FD\r\n")
assert bus.recv(512).startswith(b"AGREE")
bus.sendall(b"BEGIN\r\n")
name = "org.freedesktop.DBus"
bus.sendall(call(1, name, "/org/freedesktop/DBus", name, "Hello"))
# Before it is answered, files would not be taken.
assert bus.recv(512)
shape = field(8, "g", struct.pack("B", len(signature)) + signature.encode() + b"\0")
request = call(2, service, path, interface, method, shape, field(9, "u", struct.pack("<I", files)), body=body)
opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(files)]
bus.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", opened))])

heard = b""
while True:
    while len(heard) >= 16:
        kind, length, fields = heard[1], *struct.unpack_from("<I4xI", heard, 4)
        start = 16 + fields + (-fields % 8)
        if len(heard) < start + length:
            break
        head, said, heard = heard[:start], heard[start:start + length], heard[start + length:]
        # The serial that it answers is field 5, an uint32.
        if field(5, "u", struct.pack("<I", 2)) not in head:
            continue
        if kind == 3:
            sys.exit("Call failed: " + said[4:-1].decode())
        sys.exit(0)
    more = bus.recv(65536)
    assert more, "the bus has hung up"
    heard += more
