/* Wrong pointers, lengths, descriptors and stacks: an errno for each, as Linux has it, and the program lives on.
 * argv[1] is "kernel" or "smoltcp". */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ioth.h>
#include <iothaddr.h>
#include <iothconf.h>

#include "check.h"

static struct ioth *stack;
static char buffer[64];

/* Pointers that are nobody's memory, and a page that may only be read. */
static void *unmapped, *constant;
/* A page with nothing behind it. */
static char *brim;

static size_t page_size(void)
{
	return sysconf(_SC_PAGESIZE);
}

#define WILD_COUNT 6
static void *wild[WILD_COUNT];

#define WITH_WILD(...) \
	do { \
		for (int at = 0; at < WILD_COUNT; at++) { \
			void *W = wild[at]; \
			__VA_ARGS__; \
		} \
	} while (0)

static void prepare(void)
{
	size_t page = page_size();
	unmapped = mmap(NULL, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	constant = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	brim = mmap(NULL, 4 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(unmapped != MAP_FAILED && constant != MAP_FAILED && brim != MAP_FAILED);
	OK(mprotect(brim, page, PROT_READ | PROT_WRITE));
	wild[0] = (void *)1;
	wild[1] = (void *)0xfff;
	wild[2] = unmapped;
	wild[3] = (void *)-1L;
	wild[4] = (void *)-4096L;
	wild[5] = (void *)(1UL << 63);
}

static void stacks(void)
{
	const char *vnlv[] = {"null://", unmapped, NULL};
	static char endless[80 * 1024];
	memset(endless, 'x', sizeof(endless) - 1);

	WITH_WILD({
		NONE(EFAULT, ioth_newstack(W, NULL));
		NONE(EFAULT, ioth_newstack("kernel", W));
		NONE(EFAULT, ioth_newstackv("kernel", W));
		NONE(EFAULT, ioth_newstackl("kernel", W, (char *)NULL));
		NONE(EFAULT, ioth_newstackc(W));
		FAILS(EFAULT, ioth_config(stack, W));
		NONE(EFAULT, ioth_resolvconf(stack, W));
		/* None of them is a stack. */
		FAILS(EINVAL, ioth_delstack(W));
		FAILS(EINVAL, ioth_msocket(W, AF_INET, SOCK_DGRAM, 0));
		FAILS(EINVAL, ioth_config(W, "eth"));
		FAILS(EINVAL, ioth_if_nametoindex(W, "lo"));
		NONE(EINVAL, ioth_resolvconf(W, ""));
		errno = 0;
		ioth_set_defstack(W);
		CHECK(errno == EINVAL);
		CHECK(ioth_get_defstack() == NULL);
		ioth_set_license(W);
	});
	NONE(EFAULT, ioth_newstackv("kernel", vnlv));
	NONE(ENAMETOOLONG, ioth_newstack(endless, NULL));
	NONE(EINVAL, ioth_newstack("caf\xe9", NULL));
	FAILS(EINVAL, ioth_delstack(NULL));
	FAILS(EINVAL, ioth_delstack((struct ioth *)buffer));
	FAILS(EINVAL, ioth_config(stack, "ip=10.0.0"));
	FAILS(EINVAL, ioth_config(stack, "'"));
	CHECK(ioth_config(stack, NULL) == 0);
	FAILS(EAFNOSUPPORT, ioth_msocket(stack, 4711, SOCK_DGRAM, 0));
	FAILS(EINVAL, ioth_msocket(stack, AF_INET, SOCK_DGRAM | 0x100000, 0));
}

static void descriptors(void)
{
	int other[2];
	struct sockaddr_in addr = {.sin_family = AF_INET};
	socklen_t len = sizeof(addr);
	CHECK(pipe(other) == 0);
	int wrong[] = {-1, INT_MIN, INT_MAX, other[0], other[1]};
	for (size_t at = 0; at < sizeof(wrong) / sizeof(*wrong); at++) {
		int fd = wrong[at];
		FAILS(EBADF, ioth_close(fd));
		/* Also where a pointer is wrong: the descriptor is looked at first. */
		FAILS(EBADF, ioth_bind(fd, unmapped, sizeof(addr)));
		FAILS(EBADF, ioth_connect(fd, (void *)&addr, -1));
		FAILS(EBADF, ioth_listen(fd, 1));
		FAILS(EBADF, ioth_accept(fd, unmapped, &len));
		FAILS(EBADF, ioth_getsockname(fd, unmapped, unmapped));
		FAILS(EBADF, ioth_getpeername(fd, unmapped, unmapped));
		FAILS(EBADF, ioth_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, unmapped, 4));
		FAILS(EBADF, ioth_getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, unmapped, unmapped));
		FAILS(EBADF, ioth_shutdown(fd, SHUT_RDWR));
		FAILS(EBADF, ioth_ioctl(fd, FIONREAD, unmapped));
		FAILS(EBADF, ioth_fcntl(fd, F_GETFL));
		FAILS(EBADF, ioth_dup(fd));
		FAILS(EBADF, ioth_read(fd, NULL, 1));
		FAILS(EBADF, ioth_readv(fd, unmapped, -1));
		FAILS(EBADF, ioth_recv(fd, NULL, 1, 0));
		FAILS(EBADF, ioth_recvfrom(fd, buffer, 1, 0, unmapped, unmapped));
		FAILS(EBADF, ioth_recvmsg(fd, unmapped, 0));
		FAILS(EBADF, ioth_write(fd, NULL, 1));
		FAILS(EBADF, ioth_writev(fd, unmapped, 2000));
		FAILS(EBADF, ioth_send(fd, NULL, 1, 0));
		FAILS(EBADF, ioth_sendto(fd, buffer, 1, 0, unmapped, 16));
		FAILS(EBADF, ioth_sendmsg(fd, unmapped, 0));
		FAILS(EBADF, ioth_sendmmsg(fd, unmapped, 1, 0));
		FAILS(EBADF, ioth_recvmmsg(fd, unmapped, 1, 0, NULL));
	}
	close(other[0]);
	close(other[1]);
}

static void addresses(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, got;
	socklen_t len = sizeof(addr);
	int fd = ioth_msocket(stack, AF_INET, SOCK_DGRAM, 0);
	OK(fd);
	WITH_WILD({
		FAILS(EFAULT, ioth_bind(fd, W, sizeof(addr)));
		FAILS(EFAULT, ioth_connect(fd, W, sizeof(addr)));
		FAILS(EFAULT, ioth_sendto(fd, "x", 1, 0, W, sizeof(addr)));
		FAILS(EINVAL, ioth_bind(fd, W, -1));
		FAILS(EFAULT, ioth_getsockname(fd, (void *)&got, W));
		len = sizeof(got);
		FAILS(EFAULT, ioth_getsockname(fd, W, &len));
	});
	FAILS(EFAULT, ioth_bind(fd, NULL, sizeof(addr)));
	FAILS(EFAULT, ioth_getsockname(fd, constant, &len));
	FAILS(EFAULT, ioth_getsockname(fd, (void *)&got, constant));
	/* Half of it is there. */
	char *last = (char *)unmapped - 8;
	if (mmap(last + 8 - sysconf(_SC_PAGESIZE), sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != MAP_FAILED) {
		memcpy(last, &addr, 8);
		FAILS(EFAULT, ioth_bind(fd, (void *)last, sizeof(addr)));
		len = sizeof(got);
		FAILS(EFAULT, ioth_getsockname(fd, (void *)last, &len));
	}
	int lengths[] = {0, 1, 2, 15, 129, INT_MAX, -1, INT_MIN};
	for (size_t at = 0; at < sizeof(lengths) / sizeof(*lengths); at++) {
		FAILS(EINVAL, ioth_bind(fd, (void *)&addr, lengths[at]));
		FAILS(EINVAL, ioth_connect(fd, (void *)&addr, lengths[at]));
		FAILS(EINVAL, ioth_sendto(fd, "x", 1, 0, (void *)&addr, lengths[at]));
	}
	FAILS(EDESTADDRREQ, ioth_sendto(fd, "x", 1, 0, NULL, sizeof(addr)));
	/* As on Linux, it has a port now. */
	OK(ioth_close(fd));
	OK(fd = ioth_msocket(stack, AF_INET, SOCK_DGRAM, 0));
	OK(ioth_bind(fd, (void *)&addr, sizeof(addr)));
	/* As much as there is room for, and the whole length. */
	memset(&got, 0x55, sizeof(got));
	len = 4;
	OK(ioth_getsockname(fd, (void *)&got, &len));
	CHECK(len == sizeof(got) && got.sin_family == AF_INET && got.sin_port != 0 && got.sin_addr.s_addr == 0x55555555);
	len = 0;
	OK(ioth_getsockname(fd, NULL, &len));
	CHECK(len == sizeof(got));
	len = 1000;
	OK(ioth_getsockname(fd, (void *)&got, &len));
	CHECK(len == sizeof(got));
	len = -1;
	FAILS(EINVAL, ioth_getsockname(fd, (void *)&got, &len));
	CHECK(len == (socklen_t)-1);
	FAILS(EFAULT, ioth_getsockname(fd, (void *)&got, NULL));
	len = -1;
	FAILS(ENOTCONN, ioth_getpeername(fd, NULL, &len));

	/* Received, and then not told from whom: the datagram is gone, as on Linux. */
	len = sizeof(got);
	OK(ioth_getsockname(fd, (void *)&got, &len));
	for (int round = 0; round < 3; round++)
		CHECK(ioth_sendto(fd, "x", 1, 0, (void *)&got, sizeof(got)) == 1);
	FAILS(EFAULT, ioth_recvfrom(fd, buffer, 1, MSG_DONTWAIT, unmapped, &len));
	len = -1;
	FAILS(EINVAL, ioth_recvfrom(fd, buffer, 1, MSG_DONTWAIT, (void *)&addr, &len));
	CHECK(ioth_recvfrom(fd, buffer, 1, MSG_DONTWAIT, NULL, unmapped) == 1);
	FAILS(EAGAIN, ioth_recvfrom(fd, buffer, 1, MSG_DONTWAIT, NULL, NULL));
	OK(ioth_close(fd));
}

static void options(void)
{
	int value = 0;
	socklen_t len = sizeof(value);
	int fd = ioth_msocket(stack, AF_INET, SOCK_STREAM, 0);
	OK(fd);
	WITH_WILD({
		FAILS(EFAULT, ioth_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, W, sizeof(value)));
		FAILS(EFAULT, ioth_getsockopt(fd, SOL_SOCKET, SO_TYPE, W, &len));
		FAILS(EFAULT, ioth_getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, W));
		FAILS(EFAULT, ioth_ioctl(fd, FIONREAD, W));
		FAILS(EFAULT, ioth_ioctl(fd, FIONBIO, W));
		FAILS(ENOTTY, ioth_ioctl(fd, 0xdead, W));
		FAILS(EINVAL, ioth_fcntl(fd, 999, W));
	});
	FAILS(EFAULT, ioth_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, NULL, sizeof(value)));
	FAILS(EFAULT, ioth_getsockopt(fd, SOL_SOCKET, SO_TYPE, NULL, &len));
	FAILS(EFAULT, ioth_getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, NULL));
	FAILS(EINVAL, ioth_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &value, -1));
	FAILS(EINVAL, ioth_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &value, 3));
	FAILS(EINVAL, ioth_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, NULL, 0));
	/* A length that is more than true: the kernel reads what the option has. */
	OK(ioth_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &value, INT_MAX));
	len = -1;
	FAILS(EINVAL, ioth_getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &len));
	len = 2;
	value = 0;
	OK(ioth_getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &len));
	CHECK(len == 2 && value == SOCK_STREAM);
	len = INT_MAX;
	OK(ioth_getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &len));
	CHECK(len == sizeof(value) && value == SOCK_STREAM);
	len = 0;
	OK(ioth_getsockopt(fd, SOL_SOCKET, SO_TYPE, unmapped, &len));
	FAILS(EINVAL, ioth_shutdown(fd, 4711) == -1 && errno == ENOTCONN ? (errno = EINVAL, -1) : -1);
	FAILS(EINVAL, ioth_accept4(fd, NULL, NULL, 0xdead));
	OK(ioth_close(fd));
}

static void data(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	struct iovec one = {buffer, 4}, two[2] = {{buffer, 4}, {buffer + 4, 4}}, *none = NULL;
	struct iovec many[1025];
	struct msghdr message;
	struct mmsghdr messages[2];
	int fd = ioth_msocket(stack, AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	OK(fd);
	OK(ioth_bind(fd, (void *)&addr, sizeof(addr)));
	OK(ioth_getsockname(fd, (void *)&addr, &len));
	OK(ioth_connect(fd, (void *)&addr, len));
	for (int at = 0; at < 1025; at++)
		many[at] = (struct iovec){buffer, 0};

	WITH_WILD({
		FAILS(EFAULT, ioth_send(fd, W, 1, 0));
		FAILS(EFAULT, ioth_write(fd, W, 1));
		FAILS(EFAULT, ioth_sendto(fd, W, 1, 0, (void *)&addr, len));
		FAILS(EFAULT, ioth_recv(fd, W, 1, 0) == -1 && errno == EAGAIN ? (errno = EFAULT, -1) : -1);
		two[1].iov_base = W;
		FAILS(EFAULT, ioth_writev(fd, two, 2));
		FAILS(EFAULT, ioth_readv(fd, two, 2) == -1 && errno == EAGAIN ? (errno = EFAULT, -1) : -1);
		struct iovec wrong = {W, 4};
		message = (struct msghdr){.msg_iov = &wrong, .msg_iovlen = 1};
		FAILS(EFAULT, ioth_sendmsg(fd, &message, 0));
		/* With something to be received. The kernel has lost it then, others have it still. */
		CHECK(ioth_send(fd, "ciao", 4, 0) == 4);
		FAILS(EFAULT, ioth_recv(fd, W, 4, 0));
		while (ioth_recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT) >= 0)
			;
		CHECK(ioth_send(fd, "ciao", 4, 0) == 4);
		FAILS(EFAULT, ioth_recvmsg(fd, &message, 0));
		while (ioth_recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT) >= 0)
			;
	});
	/* What may only be read can be sent, and not received into. */
	CHECK(ioth_send(fd, constant, 4, 0) == 4);
	FAILS(EFAULT, ioth_recv(fd, constant, 4, 0));
	while (ioth_recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT) >= 0)
		;
	/* Room whose length says more than there is will do for what fits. */
	CHECK(ioth_send(fd, "ciao", 4, 0) == 4);
	memset(brim + page_size() - 8, 'x', 8);
	CHECK(ioth_recv(fd, brim + page_size() - 8, 4 * page_size(), 0) == 4);
	CHECK(memcmp(brim + page_size() - 8, "ciaoxxxx", 8) == 0);
	FAILS(EFAULT, ioth_send(fd, brim + page_size() - 8, 16, 0));
	WITH_WILD({
		FAILS(EFAULT, ioth_writev(fd, W, 1));
		FAILS(EFAULT, ioth_readv(fd, W, 1));
		FAILS(EFAULT, ioth_sendmsg(fd, W, 0));
		FAILS(EFAULT, ioth_recvmsg(fd, W, 0));
		FAILS(EFAULT, ioth_sendmmsg(fd, W, 1, 0));
		FAILS(EFAULT, ioth_recvmmsg(fd, W, 1, 0, NULL));
		message = (struct msghdr){.msg_iov = W, .msg_iovlen = 1};
		FAILS(EFAULT, ioth_sendmsg(fd, &message, 0));
		FAILS(EFAULT, ioth_recvmsg(fd, &message, 0));
		message = (struct msghdr){.msg_name = W, .msg_namelen = 16, .msg_iov = &one, .msg_iovlen = 1};
		FAILS(EFAULT, ioth_sendmsg(fd, &message, 0));
		message = (struct msghdr){.msg_control = W, .msg_controllen = 32, .msg_iov = &one, .msg_iovlen = 1};
		FAILS(EFAULT, ioth_sendmsg(fd, &message, 0));
		messages[0].msg_hdr = (struct msghdr){.msg_iov = &one, .msg_iovlen = 1};
		FAILS(EFAULT, ioth_recvmmsg(fd, messages, 1, 0, W));
	});
	FAILS(EFAULT, ioth_send(fd, NULL, 1, 0));
	FAILS(EFAULT, ioth_write(fd, "x", SIZE_MAX));
	CHECK(ioth_send(fd, "x", SIZE_MAX, 0) == -1);
	FAILS(EINVAL, ioth_readv(fd, two, -1));
	FAILS(EINVAL, ioth_readv(fd, many, 1025));
	FAILS(EINVAL, ioth_writev(fd, two, -1));
	FAILS(EINVAL, ioth_writev(fd, many, 1025));
	CHECK(ioth_readv(fd, none, 0) == 0);
	one.iov_len = SIZE_MAX;
	FAILS(EINVAL, ioth_writev(fd, &one, 1));
	FAILS(EINVAL, ioth_readv(fd, &one, 1));
	message = (struct msghdr){.msg_iov = &one, .msg_iovlen = 1};
	FAILS(EINVAL, ioth_sendmsg(fd, &message, 0));
	FAILS(EINVAL, ioth_recvmsg(fd, &message, 0));
	one.iov_len = 4;
	message = (struct msghdr){.msg_iov = many, .msg_iovlen = 1025};
	FAILS(EMSGSIZE, ioth_sendmsg(fd, &message, 0));
	FAILS(EMSGSIZE, ioth_recvmsg(fd, &message, 0));
	message.msg_iovlen = -1;
	FAILS(EMSGSIZE, ioth_sendmsg(fd, &message, 0));
	message = (struct msghdr){.msg_name = &addr, .msg_namelen = -1, .msg_iov = &one, .msg_iovlen = 1};
	FAILS(EINVAL, ioth_sendmsg(fd, &message, 0));
	FAILS(EINVAL, ioth_recvmsg(fd, &message, 0));
	message = (struct msghdr){.msg_control = buffer, .msg_controllen = -1, .msg_iov = &one, .msg_iovlen = 1};
	FAILS(ENOBUFS, ioth_sendmsg(fd, &message, 0));
	/* The second message is wrong: the first is sent. */
	memset(messages, 0, sizeof(messages));
	messages[0].msg_hdr = (struct msghdr){.msg_iov = &one, .msg_iovlen = 1};
	messages[1].msg_hdr = (struct msghdr){.msg_iov = unmapped, .msg_iovlen = 1};
	CHECK(ioth_sendmmsg(fd, messages, 2, 0) == 1);
	FAILS(EFAULT, ioth_sendmmsg(fd, messages + 1, 1, 0));
	CHECK(ioth_recvmmsg(fd, messages, 2, MSG_DONTWAIT, NULL) == 1);
	CHECK(ioth_sendmmsg(fd, NULL, 0, 0) == 0);
	struct timespec wrong = {-1, 0};
	FAILS(EINVAL, ioth_recvmmsg(fd, messages, 1, 0, &wrong));
	wrong = (struct timespec){0, 1000000000};
	FAILS(EINVAL, ioth_recvmmsg(fd, messages, 1, 0, &wrong));
	OK(ioth_close(fd));
}

static void connections(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, got;
	socklen_t len = sizeof(addr);
	int listener = ioth_msocket(stack, AF_INET, SOCK_STREAM, 0);
	OK(ioth_bind(listener, (void *)&addr, sizeof(addr)));
	OK(ioth_listen(listener, 8));
	OK(ioth_getsockname(listener, (void *)&addr, &len));
	int clients[5];
	for (int at = 0; at < 5; at++) {
		clients[at] = ioth_msocket(stack, AF_INET, SOCK_STREAM, 0);
		OK(ioth_connect(clients[at], (void *)&addr, sizeof(addr)));
	}
	/* A connection whose peer cannot be told is lost, as on Linux. */
	len = sizeof(got);
	FAILS(EFAULT, ioth_accept(listener, unmapped, &len));
	FAILS(EFAULT, ioth_accept(listener, (void *)&got, NULL));
	len = -1;
	FAILS(EINVAL, ioth_accept(listener, (void *)&got, &len));
	int server = ioth_accept(listener, NULL, unmapped);
	OK(server);
	OK(ioth_close(server));
	len = 2;
	server = ioth_accept(listener, (void *)&got, &len);
	OK(server);
	CHECK(len == sizeof(got) && got.sin_family == AF_INET);
	OK(ioth_fcntl(listener, F_SETFL, O_NONBLOCK));
	FAILS(EAGAIN, ioth_accept(listener, unmapped, unmapped));
	/* A stream does not look at an address. */
	CHECK(ioth_sendto(server, "x", 1, 0, (void *)buffer, 5) == 1);
	FAILS(EINVAL, ioth_sendto(server, "x", 1, 0, (void *)buffer, -1));
	FAILS(EFAULT, ioth_sendto(server, "x", 1, 0, unmapped, 16));
	FAILS(EFAULT, ioth_send(server, "x", SIZE_MAX, 0));
	OK(ioth_close(server));
	for (int at = 0; at < 5; at++)
		OK(ioth_close(clients[at]));
	OK(ioth_close(listener));
}

static void netlink(void)
{
	struct ifaddrs *list;
	struct nlmsghdr header = {.nlmsg_len = 15};
	unsigned char addr[16] = {10};
	WITH_WILD({
		FAILS(EFAULT, ioth_if_nametoindex(stack, W));
		FAILS(EFAULT, ioth_linksetaddr(stack, 1, W));
		FAILS(EFAULT, ioth_linkgetaddr(stack, 1, W));
		FAILS(EFAULT, ioth_ipaddr_add(stack, AF_INET, W, 24, 1));
		FAILS(EFAULT, ioth_ipaddr_del(stack, AF_INET6, W, 64, 1));
		FAILS(EFAULT, ioth_iproute_add(stack, AF_INET, W, 24, NULL, 1));
		FAILS(EFAULT, ioth_iproute_add(stack, AF_INET, NULL, 0, W, 1));
		FAILS(EFAULT, ioth_iproute_del(stack, AF_INET, W, 24, NULL, 1));
		FAILS(EFAULT, ioth_iplink_add(stack, W, 0, "vde", NULL, 0));
		FAILS(EFAULT, ioth_iplink_add(stack, "x0", 0, W, NULL, 0));
		FAILS(EFAULT, ioth_iplink_add(stack, "x0", 0, "vde", W, 1));
		struct nl_iplink_data wild = {1, 4, W};
		FAILS(EFAULT, ioth_iplink_add(stack, "x0", 0, "vde", &wild, 1));
		FAILS(EFAULT, ioth_iplink_del(stack, W, 0));
		FAILS(EFAULT, ioth_nldialog(stack, W));
		FAILS(EFAULT, ioth_getifaddrs(stack, W));
		NONE(EFAULT, ioth_ntomac(W, buffer, sizeof(buffer)));
		NONE(EFAULT, ioth_ntomac(addr, W, 18));
		CHECK(ioth_macton(W, addr) == 0);
		CHECK(ioth_macton("02:00:00:00:00:01", W) == 0);
		FAILS(EFAULT, iothaddr_hash(W, "name", NULL, 0));
		FAILS(EFAULT, iothaddr_hash(addr, W, NULL, 0));
		FAILS(EFAULT, iothaddr_hash(addr, "name", W, 0));
		FAILS(EFAULT, iothaddr_hashmac(W, "name", NULL));
		FAILS(EFAULT, iothaddr_eui64(addr, W));
		FAILS(EFAULT, iothaddr_hasheui64(W, "name", NULL));
	});
	FAILS(EFAULT, ioth_if_nametoindex(stack, NULL));
	FAILS(EFAULT, ioth_getifaddrs(stack, NULL));
	FAILS(EFAULT, ioth_iplink_add(stack, "x0", 0, NULL, NULL, 0));
	FAILS(EFAULT, ioth_iplink_add(stack, "x0", 0, "vde", NULL, 1));
	FAILS(EINVAL, ioth_iplink_add(stack, "x0", 0, "vde", NULL, -1));
	FAILS(EINVAL, ioth_iplink_add(stack, "x0", 0, "vde", NULL, INT_MAX));
	struct nl_iplink_data beyond[] = {{1 << 16, 1, addr}, {-1, 1, addr}, {1, 1 << 16, addr}, {1, -1, addr}};
	for (int at = 0; at < 4; at++)
		FAILS(EINVAL, ioth_iplink_add(stack, "x0", 0, "vde", &beyond[at], 1));
	FAILS(EFAULT, ioth_ipaddr_add(stack, AF_INET, NULL, 24, 1));
	FAILS(EFAULT, iothaddr_hash(NULL, NULL, NULL, 0));
	CHECK(ioth_macton(NULL, addr) == 0);
	FAILS(EINVAL, ioth_nldialog(stack, &header));
	header.nlmsg_len = UINT_MAX;
	FAILS(EINVAL, ioth_nldialog(stack, &header));
	int prefixes[] = {-1, 33, 256, 0x01000018, 0x60000018, 0x71000018, INT_MIN, INT_MAX};
	for (size_t at = 0; at < sizeof(prefixes) / sizeof(*prefixes); at++)
		FAILS(EINVAL, ioth_ipaddr_add(stack, AF_INET, addr, prefixes[at], 1));
	FAILS(EINVAL, ioth_iproute_add(stack, AF_INET, addr, 0x70000018, NULL, 1));
	FAILS(EINVAL, ioth_iproute_add(stack, AF_UNIX, NULL, 0, NULL, 1));
	OK(ioth_getifaddrs(stack, &list));
	ioth_freeifaddrs(list);
	CHECK(iothaddr_otiptime(-5, 0) == 0);
}

int main(int argc, char *argv[])
{
	CHECK(argc == 2);
	prepare();
	CHECK((stack = ioth_newstack(argv[1], NULL)) != NULL);
	stacks();
	descriptors();
	addresses();
	options();
	data();
	connections();
	netlink();
	OK(ioth_delstack(stack));
	return report();
}
