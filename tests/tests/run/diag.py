"""What ss(8) says of this program's own sockets, by which it is found; the kernel judges this program as well."""

import os
import re
import socket
import subprocess
import unittest


def ss(*words):
    said = subprocess.run(["ss", "-H", "-n", *words], capture_output=True, text=True, check=True)
    return said.stdout


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
        name = "{}:{}".format(*sock.getsockname())
        lines = re.split(r"\n(?=\S)", ss(*words).strip())
        return next(line for line in lines if re.search(r"\s" + re.escape(name) + r"\s+127", line))

    def test_who_has_it(self):
        self.assertIn(self.mine(self.listener), ss("-t", "-l", "-p"))
        self.assertIn(self.mine(self.client), self.line(self.client, "-t", "-p"))
        self.assertIn(self.mine(self.server), self.line(self.server, "-t", "-p"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind(("127.0.0.1", 0))
            self.assertIn(self.mine(datagrams), ss("-u", "-l", "-p"))

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
