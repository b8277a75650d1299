"""How connections end, as the kernel has it: it judges this program as well, by `python3 ends.py`."""

import os
import select
import socket
import struct
import unittest

ABORT = struct.pack("ii", 1, 0)
HANG_UP = select.POLLHUP


def poll(sock, events):
    poller = select.poll()
    poller.register(sock, events)
    return poller.poll(20_000)[0][1]


class Ends(unittest.TestCase):
    def setUp(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.client = socket.create_connection(self.listener.getsockname())

    def tearDown(self):
        self.client.close()
        self.listener.close()

    def reset(self):
        server, _ = self.listener.accept()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        server.close()

    def test_a_reset_is_told_to_who_reads(self):
        self.reset()
        ways = {way: lambda way=way: getattr(self.client, way)(1) for way in ("recv", "recvfrom", "recvmsg")}
        ways["read"] = lambda: os.read(self.client.fileno(), 1)
        ways["readv"] = lambda: os.readv(self.client.fileno(), [bytearray(1)])
        for way, receive in ways.items():
            with self.subTest(way):
                self.assertTrue(poll(self.client, 0) & HANG_UP)
                with self.assertRaises(ConnectionResetError):
                    receive()
                self.assertEqual(self.client.recv(1), b"")
                self.assertEqual(os.read(self.client.fileno(), 1), b"")
                self.client.close()
                self.client = socket.create_connection(self.listener.getsockname())
                self.reset()

    def test_a_reset_is_told_to_who_writes(self):
        self.reset()
        self.assertTrue(poll(self.client, 0) & HANG_UP)
        with self.assertRaises(ConnectionResetError):
            self.client.send(b"x")
        with self.assertRaises(BrokenPipeError):
            self.client.send(b"x")

    def test_an_end_is_no_reset(self):
        server, _ = self.listener.accept()
        server.close()
        self.assertEqual(self.client.recv(1), b"")
        self.assertEqual(self.client.recvmsg(1)[0], b"")
        self.assertEqual(os.read(self.client.fileno(), 1), b"")
        self.assertEqual(os.readv(self.client.fileno(), [bytearray(1)]), 0)
        self.client.shutdown(socket.SHUT_WR)
        self.assertTrue(poll(self.client, 0) & HANG_UP)
        self.assertEqual(self.client.recv(1), b"")
        with self.assertRaises(BrokenPipeError):
            self.client.send(b"x")

    def test_connections_that_nobody_accepts_are_reset(self):
        others = [socket.create_connection(self.listener.getsockname()) for _ in range(5)]
        others[0].send(b"data")
        self.listener.close()
        for client in [self.client, *others]:
            with self.assertRaises(ConnectionResetError):
                client.recv(1)
            client.close()

    def test_what_was_accepted_lives_on(self):
        server, _ = self.listener.accept()
        with socket.create_connection(self.listener.getsockname()) as other:
            self.listener.close()
            with self.assertRaises(ConnectionResetError):
                other.recv(1)
        server.send(b"still there")
        self.assertEqual(self.client.recv(100), b"still there")
        server.close()
        self.assertEqual(self.client.recv(100), b"")

    def test_options_outlast_the_connection(self):
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        server, _ = self.listener.accept()
        server.close()
        self.client.shutdown(socket.SHUT_RDWR)
        self.assertTrue(poll(self.client, 0) & HANG_UP)
        self.assertEqual(self.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), 1)
        self.assertEqual(self.client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
        self.assertEqual(self.client.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST), 0)
        self.assertEqual(self.client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), 0)
        self.assertEqual(self.client.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE), socket.SOCK_STREAM)

    def test_priority_and_credentials(self):
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 6)
        self.assertEqual(self.client.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY), 6)
        self.client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x08)
        self.assertEqual(self.client.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY), 2)
        credentials = self.client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.assertEqual(struct.unpack("iii", credentials), (0, -1, -1))


if __name__ == "__main__":
    unittest.main()
