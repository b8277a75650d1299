/* Datagrams. */
#include "check.h"

#include <linux/errqueue.h>

static int bound(void)
{
	int fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
	struct sockaddr_in addr = loopback(0);
	OK(bind(fd, (struct sockaddr *)&addr, sizeof(addr)));
	return fd;
}

static void talk(void)
{
	int a = bound(), b = bound();
	struct sockaddr_in to = loopback(port_of(b)), from;
	char text[128], byte;
	for (int i = 0; i < 50; i++) {
		int len = snprintf(text, sizeof(text), "number %d", i);
		CHECK(OK(sendto(a, text, len, 0, (struct sockaddr *)&to, sizeof(to))) == len);
		char got[128];
		socklen_t from_len = sizeof(from);
		CHECK(OK(recvfrom(b, got, sizeof(got), 0, (struct sockaddr *)&from, &from_len)) == len);
		CHECK(memcmp(text, got, len) == 0);
		CHECK(from_len == sizeof(from) && ntohs(from.sin_port) == port_of(a));
	}
	FAILS(EDESTADDRREQ, send(a, "x", 1, 0));

	/* Longer than the room. */
	struct iovec parts[2] = {{text, 2}, {text + 10, 3}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2, .msg_name = &from, .msg_namelen = sizeof(from)};
	CHECK(OK(sendto(a, "0123456789", 10, 0, (struct sockaddr *)&to, sizeof(to))) == 10);
	CHECK(OK(recvmsg(b, &message, MSG_PEEK)) == 5);
	CHECK(message.msg_flags == MSG_TRUNC && message.msg_namelen == sizeof(from));
	CHECK(memcmp(text, "01", 2) == 0 && memcmp(text + 10, "234", 3) == 0);
	CHECK(OK(recvmsg(b, &message, MSG_PEEK | MSG_TRUNC)) == 10);
	int count;
	OK(ioctl(b, FIONREAD, &count));
	CHECK(count == 10);
	CHECK(OK(recv(b, &byte, 1, MSG_TRUNC)) == 10 && byte == '0');
	OK(ioctl(b, FIONREAD, &count));
	CHECK(count == 0);

	/* Of no length. */
	CHECK(OK(sendto(a, "", 0, 0, (struct sockaddr *)&to, sizeof(to))) == 0);
	CHECK(OK(recv(b, text, sizeof(text), 0)) == 0);
	FAILS(EAGAIN, recv(b, text, sizeof(text), MSG_DONTWAIT));
	static char large[65508];
	CHECK(OK(sendto(a, large, 65507, 0, (struct sockaddr *)&to, sizeof(to))) == 65507);
	CHECK(OK(recv(b, large, sizeof(large), 0)) == 65507);
	FAILS(EMSGSIZE, sendto(a, large, 65508, 0, (struct sockaddr *)&to, sizeof(to)));
}

static void connected(void)
{
	int a = bound(), b = bound();
	struct sockaddr_in to_a = loopback(port_of(a)), to_b = loopback(port_of(b)), from;
	OK(connect(a, (struct sockaddr *)&to_b, sizeof(to_b)));
	OK(connect(b, (struct sockaddr *)&to_a, sizeof(to_a)));
	char text[64];
	CHECK(OK(write(a, "plain", 5)) == 5);
	CHECK(OK(read(b, text, sizeof(text))) == 5 && memcmp(text, "plain", 5) == 0);
	CHECK(OK(send(a, "longer", 6, 0)) == 6);
	socklen_t len = sizeof(from);
	CHECK(OK(recvfrom(b, text, 3, 0, (struct sockaddr *)&from, &len)) == 3);
	CHECK(len == sizeof(from) && from.sin_port == to_a.sin_port);
	CHECK(OK(sendto(a, "to", 2, 0, (struct sockaddr *)&to_b, sizeof(to_b))) == 2);
	CHECK(OK(recv(b, text, 1, MSG_TRUNC)) == 2);
	CHECK(OK(send(a, "", 0, 0)) == 0);
	CHECK(polled(b, POLLIN, -1) == POLLIN);
	CHECK(OK(recv(b, text, sizeof(text), 0)) == 0);
}

/* The node of the tests says that each message has a TTL of 77. */
static void ancillary(void)
{
	int a = bound(), b = bound(), one = 1;
	struct sockaddr_in to = loopback(port_of(b)), from;
	OK(setsockopt(b, IPPROTO_IP, IP_RECVTTL, &one, sizeof(one)));
	char text[16], control[64];
	struct iovec parts[3] = {{text, 1}, {text + 5, 0}, {text + 8, 3}};
	for (unsigned room = 0; room <= sizeof(control); room += 4) {
		struct msghdr message = {.msg_iov = parts,
					 .msg_iovlen = 3,
					 .msg_name = &from,
					 .msg_namelen = sizeof(from),
					 .msg_control = control,
					 .msg_controllen = room};
		memset(text, 0, sizeof(text));
		memset(control, 0xff, sizeof(control));
		CHECK(OK(sendto(a, "abcd", 4, 0, (struct sockaddr *)&to, sizeof(to))) == 4);
		CHECK(OK(recvmsg(b, &message, 0)) == 4 && ntohs(from.sin_port) == port_of(a));
		CHECK(text[0] == 'a' && text[1] == 0 && text[5] == 0 && memcmp(text + 8, "bcd\0", 4) == 0);
		struct cmsghdr *ttl = CMSG_FIRSTHDR(&message);
		CHECK(message.msg_flags == (room < CMSG_LEN(4) ? MSG_CTRUNC : 0));
		CHECK(!ttl == (room < sizeof(struct cmsghdr)));
		if (!ttl)
			continue;
		CHECK(ttl->cmsg_level == IPPROTO_IP && ttl->cmsg_type == IP_TTL);
		CHECK(ttl->cmsg_len == (room < CMSG_LEN(4) ? room : CMSG_LEN(4)));
		if (room >= CMSG_LEN(4))
			CHECK(*(int *)CMSG_DATA(ttl) == 77);
		CHECK((unsigned char)control[message.msg_controllen] == 0xff || message.msg_controllen == sizeof(control));
	}
	/* Those who do not ask for it. */
	for (int len = 0; len < 6; len++) {
		CHECK(OK(sendto(a, "abcd", 4, 0, (struct sockaddr *)&to, sizeof(to))) == 4);
		int count;
		CHECK(polled(b, POLLIN, -1) == POLLIN);
		OK(ioctl(b, FIONREAD, &count));
		CHECK(count == 4);
		memset(text, 0, sizeof(text));
		CHECK(OK(recv(b, text, len, 0)) == (len < 4 ? len : 4));
		CHECK(memcmp(text, "abcd", len < 4 ? len : 4) == 0 && text[len < 4 ? len : 4] == 0);
	}
}

/* Nobody is there: the error comes, and what was sent. */
static void refused(void)
{
	int gone = bound(), on = 1;
	struct sockaddr_in to = loopback(port_of(gone)), from;
	/* Nobody else gets its port, and it hears nobody but that peer. */
	struct sockaddr_in peer = loopback(9);
	OK(connect(gone, (struct sockaddr *)&peer, sizeof(peer)));
	int a = bound();
	OK(setsockopt(a, IPPROTO_IP, IP_RECVERR, &on, sizeof(on)));
	char text[2] = "", control[128];
	struct iovec part = {text, sizeof(text)};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_name = &from, .msg_namelen = sizeof(from),
				 .msg_control = control, .msg_controllen = sizeof(control)};
	FAILS(EAGAIN, recvmsg(a, &message, MSG_ERRQUEUE));
	CHECK(OK(sendto(a, "lost", 4, 0, (struct sockaddr *)&to, sizeof(to))) == 4);
	FAILS(ECONNREFUSED, recv(a, text, sizeof(text), 0));
	CHECK(OK(recvmsg(a, &message, MSG_ERRQUEUE)) == 2);
	CHECK(memcmp(text, "lo", 2) == 0);
	CHECK(message.msg_flags == (MSG_ERRQUEUE | MSG_TRUNC));
	CHECK(message.msg_namelen == sizeof(from) && from.sin_port == to.sin_port);
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	CHECK(header && header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_RECVERR);
	struct sock_extended_err *error = (struct sock_extended_err *)CMSG_DATA(header);
	CHECK(error->ee_errno == ECONNREFUSED && error->ee_origin == SO_EE_ORIGIN_ICMP);
	struct sockaddr_in *offender = (struct sockaddr_in *)SO_EE_OFFENDER(error);
	CHECK(offender->sin_addr.s_addr == htonl(INADDR_LOOPBACK));
	FAILS(EAGAIN, recvmsg(a, &message, MSG_ERRQUEUE));
}

static void many(void)
{
	int a = bound(), b = bound();
	struct sockaddr_in to = loopback(port_of(b)), from[4];
	char text[4][16];
	struct iovec parts[4];
	struct mmsghdr list[4];
	memset(list, 0, sizeof(list));
	for (int i = 0; i < 4; i++) {
		parts[i] = (struct iovec){"message", i + 1};
		list[i].msg_hdr = (struct msghdr){
			.msg_name = &to, .msg_namelen = sizeof(to), .msg_iov = &parts[i], .msg_iovlen = 1};
	}
	CHECK(OK(sendmmsg(a, list, 4, 0)) == 4);
	CHECK(list[3].msg_len == 4);
	for (int i = 0; i < 4; i++) {
		parts[i] = (struct iovec){text[i], sizeof(text[i])};
		list[i].msg_hdr.msg_name = &from[i];
	}
	CHECK(OK(recvmmsg(b, list, 4, 0, NULL)) == 4);
	for (int i = 0; i < 4; i++)
		CHECK(list[i].msg_len == (unsigned)i + 1 && from[i].sin_port == htons(port_of(a)));
	CHECK(OK(sendto(a, "one", 3, 0, (struct sockaddr *)&to, sizeof(to))) == 3);
	struct timespec time = {.tv_sec = 100};
	CHECK(OK(recvmmsg(b, list, 4, MSG_WAITFORONE, &time)) == 1);
	CHECK(time.tv_sec >= 98 && time.tv_sec < 100);
	time.tv_nsec = -1;
	FAILS(EINVAL, recvmmsg(b, list, 4, 0, &time));
	FAILS(EAGAIN, recvmmsg(b, list, 4, MSG_DONTWAIT, NULL));
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"talk", talk}, {"connected", connected}, {"ancillary", ancillary}, {"refused", refused}, {"many", many}, {NULL, NULL}};
	return run_test(tests, argc > 1 ? argv[1] : NULL);
}
