"""What ss(8) says of this program's own sockets, by which it is found; the kernel judges this program as well."""

import os
import re
import socket
import subprocess
import time
import unittest


def ss(*words):
    said = subprocess.run(["ss", "-H", "-n", *words], capture_output=True, text=True, check=True)
    return said.stdout


class Name:
    """The name of an end that may be over; with a listener, that of the end that it has for a client."""

    def __init__(self, sock, listener=None):
        self.local = (listener or sock).getsockname()
        self.peer = sock.getsockname() if listener else sock.getpeername()

    def getsockname(self):
        return self.local

    def getpeername(self):
        return self.peer


class Diag(unittest.TestCase):
    def setUp(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.client = socket.create_connection(self.listener.getsockname())
        self.server, _ = self.listener.accept()

    def tearDown(self):
        for sock in self.client, self.server, self.listener:
            sock.close()

    def mine(self, sock):
        return f"pid={os.getpid()},fd={sock.fileno()}"

    def line(self, sock, *words):
        """What is said of a connection's end, by its address."""
        names = ["{}:{}".format(*name) for name in (sock.getsockname(), sock.getpeername())]
        pair = r"\s" + r"\s+".join(map(re.escape, names)) + r"\b"
        lines = re.split(r"\n(?=\S)", ss(*words).strip())
        return next(line for line in lines if re.search(pair, line))

    def test_who_has_it(self):
        self.assertIn(self.mine(self.listener), ss("-t", "-l", "-p"))
        self.assertIn(self.mine(self.client), self.line(self.client, "-t", "-p"))
        self.assertIn(self.mine(self.server), self.line(self.server, "-t", "-p"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind(("127.0.0.1", 0))
            self.assertIn(self.mine(datagrams), ss("-u", "-l", "-p"))

    def until(self, sock, condition, *words):
        """Waits until the line of a connection's end is as it is to be: what closes it may be on its way."""
        end = time.monotonic() + 30
        while True:
            try:
                said = self.line(sock, *words)
            except StopIteration:
                said = ""
            if condition(said):
                return said
            self.assertLess(time.monotonic(), end, f"still: {said!r}")

    def test_closed_first(self):
        client, server = Name(self.client), self.server
        self.client.close()
        self.assertEqual(server.recv(1), b"")
        said = self.until(client, lambda said: said.startswith("FIN-WAIT-2"), "-t", "-a", "-p")
        self.assertNotIn("pid=", said)
        self.assertTrue(self.line(server, "-t", "-a").startswith("CLOSE-WAIT"))
        name = Name(server)
        server.close()
        said = self.until(client, lambda said: said.startswith("TIME-WAIT"), "-t", "-a", "-o")
        self.assertRegex(said, r"timer:\(timewait,\d+sec")
        self.assertNotIn("TIME-WAIT", ss("-t"), "without -a")
        self.until(name, lambda said: not said, "-t", "-a")

    def test_not_accepted(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            with socket.create_connection(listener.getsockname()) as client:
                self.assertEqual(self.line(client, "-t", "-a").split()[0], "ESTAB")
                peer = Name(client, listener)
                self.until(peer, lambda said: said.startswith("ESTAB"), "-t", "-a")

    def test_handshake(self):
        with socket.socket() as listener:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            with socket.create_connection(listener.getsockname()) as client:
                peer = Name(client, listener)
                said = self.until(peer, lambda said: said.startswith("SYN-RECV"), "-t", "-a", "-p")
                self.assertNotIn("pid=", said)
                client.sendall(b"x")
                self.until(peer, lambda said: said.startswith("ESTAB"), "-t", "-a")

    def test_bound_only(self):
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            self.assertNotIn("{}:{}".format(*bound.getsockname()), ss("-t", "-a"))

    def test_memory(self):
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000)
        said = self.line(self.client, "-t", "-m")
        self.assertIn(",tb100000,", said)

    def test_information(self):
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        said = self.line(self.client, "-t", "-i")
        self.assertRegex(said, r"\breno\b.*\bmss:\d+")


if __name__ == "__main__":
    unittest.main()
