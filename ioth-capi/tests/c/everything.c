/* Every function of the three headers, on two nodes of one process: argv[1] names their network. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/ipv6.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ioth.h>
#include <iothaddr.h>
#include <iothconf.h>

#include "check.h"

static struct sockaddr_in ipv4(const char *text, int port)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
	CHECK(inet_pton(AF_INET, text, &addr.sin_addr) == 1);
	return addr;
}

static struct sockaddr_in6 ipv6(const char *text, int port)
{
	struct sockaddr_in6 addr = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	CHECK(inet_pton(AF_INET6, text, &addr.sin6_addr) == 1);
	return addr;
}

#define ADDR(addr) (struct sockaddr *)&(addr), sizeof(addr)

/* A node made by hand: the way of the C library without strings. */
static struct ioth *node(const char *vnl, const char *v4, const char *v6)
{
	struct ioth *stack = ioth_newstack("smoltcp", vnl);
	struct in_addr addr;
	struct in6_addr addr6;
	CHECK(stack != NULL);
	int vde0 = ioth_if_nametoindex(stack, "vde0");
	CHECK(vde0 > 0);
	CHECK(inet_pton(AF_INET, v4, &addr) == 1);
	CHECK(inet_pton(AF_INET6, v6, &addr6) == 1);
	OK(ioth_ipaddr_add(stack, AF_INET, &addr, 24, vde0));
	OK(ioth_ipaddr_add(stack, AF_INET6, &addr6, nl_addrdata2prefix(64, IFA_F_NODAD, RT_SCOPE_UNIVERSE), vde0));
	FAILS(EEXIST, ioth_ipaddr_add(stack, AF_INET, &addr, 24, vde0));
	OK(ioth_linksetupdown(stack, vde0, 1));
	return stack;
}

static void stacks(const char *vnl)
{
	struct ioth *none, *two, *vector, *list;
	const char *vnlv[] = {vnl, "null://", NULL};
	const char *empty[] = {NULL};

	CHECK((none = ioth_newstack("smoltcp", NULL)) != NULL);
	CHECK(ioth_if_nametoindex(none, "lo") == 1);
	FAILS(ENODEV, ioth_if_nametoindex(none, "vde0"));
	OK(ioth_delstack(none));
	CHECK((none = ioth_newstackv("smoltcp", empty)) != NULL);
	OK(ioth_delstack(none));
	CHECK((none = ioth_newstackl("smoltcp", (char *)NULL, (char *)NULL)) != NULL);
	OK(ioth_delstack(none));

	CHECK((vector = ioth_newstackv("smoltcp", vnlv)) != NULL);
	CHECK(ioth_if_nametoindex(vector, "vde1") > 0);
	FAILS(ENODEV, ioth_if_nametoindex(vector, "vde2"));
	OK(ioth_delstack(vector));
	/* More than the registers hold. */
	list = ioth_newstackl("smoltcp", vnl, "null://", "null://", "null://", "null://", "null://", "null://", "eth7:null://",
			      (char *)NULL);
	CHECK(list != NULL);
	CHECK(ioth_if_nametoindex(list, "vde6") > 0);
	CHECK(ioth_if_nametoindex(list, "eth7") > 0);

	NONE(ENOTSUP, ioth_newstack("nosuchstack", NULL));
	CHECK(ioth_newstack("smoltcp", "nosuchscheme://") == NULL);
	ioth_set_license("SPDX-License-Identifier: GPL-2.0-or-later");

	/* The default stack. */
	CHECK(ioth_get_defstack() == NULL);
	CHECK((two = ioth_newstack(NULL, NULL)) != NULL);
	ioth_set_defstack(list);
	CHECK(ioth_get_defstack() == list);
	CHECK(ioth_if_nametoindex(NULL, "eth7") > 0);
	int on_default = ioth_socket(AF_INET, SOCK_DGRAM, 0);
	OK(on_default);
	FAILS(EBUSY, ioth_delstack(list));
	ioth_set_defstack(two);
	CHECK(ioth_get_defstack() == two);
	OK(ioth_close(on_default));
	OK(ioth_delstack(list));
	FAILS(EINVAL, ioth_delstack(list));
	FAILS(EINVAL, ioth_msocket(list, AF_INET, SOCK_DGRAM, 0));
	OK(ioth_delstack(two));
	NONE(ENODEV, ioth_get_defstack());
	FAILS(ENODEV, ioth_socket(AF_INET, SOCK_DGRAM, 0));
	ioth_set_defstack(NULL);
	CHECK(ioth_get_defstack() == NULL);

	/* The kernel's stack is the default, and its sockets are the kernel's. */
	int native = ioth_socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in local = ipv4("127.0.0.1", 0), bound;
	socklen_t len = sizeof(bound);
	char text[8];
	OK(native);
	OK(ioth_bind(native, ADDR(local)));
	OK(ioth_getsockname(native, (struct sockaddr *)&bound, &len));
	CHECK(len == sizeof(bound) && bound.sin_port != 0);
	CHECK(ioth_sendto(native, "self", 4, 0, ADDR(bound)) == 4);
	CHECK(ioth_recv(native, text, sizeof(text), 0) == 4);
	OK(ioth_close(native));
}

static void filters(struct ioth *stack)
{
	struct sock_filter two[] = {BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0), BPF_STMT(BPF_RET | BPF_K, 10)}, got[3];
	struct sock_fprog program = {.len = 2, .filter = two};
	socklen_t count = 3;
	char text[8];
	int fd = ioth_msocket(stack, AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in local = ipv4("127.0.0.1", 5001);
	OK(fd);
	OK(ioth_bind(fd, ADDR(local)));
	OK(ioth_setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)));
	/* Eight bytes are the header. */
	CHECK(ioth_sendto(fd, "abcdef", 6, 0, ADDR(local)) == 6);
	CHECK(ioth_recv(fd, text, sizeof(text), 0) == 2);
	/* Reading it counts instructions. */
	OK(ioth_getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, got, &count));
	CHECK(count == 2 && memcmp(got, two, sizeof(two)) == 0);
	count = 0;
	OK(ioth_getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &count));
	CHECK(count == 2);
	FAILS(EINVAL, ioth_setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program) - 1));
	program.len = 0;
	FAILS(EINVAL, ioth_setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)));
	program.len = 1;
	program.filter = (struct sock_filter *)8;
	FAILS(EFAULT, ioth_setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)));
	OK(ioth_close(fd));
}

static void datagrams(struct ioth *a, struct ioth *b)
{
	struct sockaddr_in6 to = ipv6("fd00::2", 5000), from;
	socklen_t len = sizeof(from);
	char text[16], control[64], more[16];
	int sender = ioth_msocket(a, AF_INET6, SOCK_DGRAM, 0);
	int receiver = ioth_msocket(b, AF_INET6, SOCK_DGRAM, 0);
	OK(sender);
	OK(receiver);
	OK(ioth_bind(receiver, ADDR(to)));
	CHECK(ioth_sendto(sender, "ciao", 4, 0, ADDR(to)) == 4);
	CHECK(ioth_recvfrom(receiver, text, sizeof(text), 0, (struct sockaddr *)&from, &len) == 4);
	CHECK(len == sizeof(from) && memcmp(text, "ciao", 4) == 0);
	CHECK(inet_ntop(AF_INET6, &from.sin6_addr, control, sizeof(control)) && strcmp(control, "fd00::1") == 0);
	/* The reply, by messages of several pieces. */
	struct iovec out[] = {{"from ", 5}, {"two", 3}}, in[] = {{text, 6}, {more, 10}};
	struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = out, .msg_iovlen = 2};
	CHECK(ioth_sendmsg(receiver, &message, 0) == 8);
	struct sockaddr_in6 source;
	message = (struct msghdr){.msg_name = &source, .msg_namelen = sizeof(source), .msg_iov = in, .msg_iovlen = 2,
				  .msg_control = control, .msg_controllen = sizeof(control), .msg_flags = -1};
	CHECK(ioth_recvmsg(sender, &message, 0) == 8);
	CHECK(memcmp(text, "from t", 6) == 0 && memcmp(more, "wo", 2) == 0);
	CHECK(message.msg_namelen == sizeof(source) && source.sin6_port == htons(5000));
	CHECK(message.msg_controllen == 0 && message.msg_flags == 0);
	/* A cut one says so. */
	CHECK(ioth_sendto(sender, "too long", 8, 0, ADDR(to)) == 8);
	message = (struct msghdr){.msg_iov = in, .msg_iovlen = 1};
	CHECK(ioth_recvmsg(receiver, &message, 0) == 6);
	CHECK(message.msg_flags == MSG_TRUNC);
	/* Connected. */
	OK(ioth_connect(sender, ADDR(to)));
	len = sizeof(from);
	OK(ioth_getpeername(sender, (struct sockaddr *)&from, &len));
	CHECK(memcmp(&from.sin6_addr, &to.sin6_addr, 16) == 0);
	CHECK(ioth_send(sender, "x", 1, MSG_NOSIGNAL) == 1);
	struct pollfd ready = {.fd = receiver, .events = POLLIN};
	CHECK(poll(&ready, 1, 10000) == 1 && ready.revents == POLLIN);
	int waiting = 0;
	OK(ioth_ioctl(receiver, FIONREAD, &waiting));
	CHECK(waiting == 1);
	CHECK(ioth_read(receiver, text, sizeof(text)) == 1);
	FAILS(EAGAIN, ioth_recv(receiver, text, sizeof(text), MSG_DONTWAIT));
	/* Many at a time. */
	struct iovec piece[3] = {{"one", 3}, {"three", 5}, {"five5", 5}};
	struct mmsghdr many[4] = {{.msg_hdr = {.msg_iov = &piece[0], .msg_iovlen = 1}},
				  {.msg_hdr = {.msg_iov = &piece[1], .msg_iovlen = 1}},
				  {.msg_hdr = {.msg_iov = &piece[2], .msg_iovlen = 1}}};
	CHECK(ioth_sendmmsg(sender, many, 3, 0) == 3);
	CHECK(many[0].msg_len == 3 && many[1].msg_len == 5 && many[2].msg_len == 5);
	char rooms[4][8];
	struct sockaddr_in6 sources[4];
	struct iovec room[4];
	for (int i = 0; i < 4; i++) {
		room[i] = (struct iovec){rooms[i], sizeof(rooms[i])};
		many[i].msg_hdr = (struct msghdr){.msg_name = &sources[i], .msg_namelen = sizeof(sources[i]), .msg_iov = &room[i],
						  .msg_iovlen = 1};
	}
	struct timespec patience = {10, 0};
	CHECK(ioth_recvmmsg(receiver, many, 4, MSG_WAITFORONE, &patience) == 3);
	CHECK(many[0].msg_len == 3 && many[1].msg_len == 5 && memcmp(rooms[1], "three", 5) == 0);
	CHECK(sources[2].sin6_port != 0 && sources[2].sin6_port == sources[0].sin6_port);
	CHECK(patience.tv_sec < 10 && patience.tv_nsec < 1000000000);
	FAILS(EAGAIN, ioth_recvmmsg(receiver, many, 4, MSG_DONTWAIT, NULL));
	OK(ioth_close(sender));
	OK(ioth_close(receiver));
}

static void streams(struct ioth *a, struct ioth *b)
{
	struct sockaddr_in to = ipv4("10.0.0.2", 80), addr;
	socklen_t len = sizeof(addr);
	char text[16], more[16];
	int on = 1, value = 0;
	int listener = ioth_msocket(b, AF_INET, SOCK_STREAM, 0);
	OK(listener);
	OK(ioth_setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
	len = sizeof(value);
	OK(ioth_getsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &value, &len));
	CHECK(value == 1 && len == sizeof(value));
	OK(ioth_bind(listener, ADDR(to)));
	OK(ioth_listen(listener, 5));
	OK(ioth_fcntl(listener, F_SETFL, O_NONBLOCK));
	FAILS(EAGAIN, ioth_accept(listener, NULL, NULL));
	OK(ioth_fcntl(listener, F_SETFL, 0));
	CHECK((ioth_fcntl(listener, F_GETFL) & O_NONBLOCK) == 0);

	int client = ioth_msocket(a, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	OK(client);
	FAILS(EINPROGRESS, ioth_connect(client, ADDR(to)));
	len = sizeof(addr);
	int server = ioth_accept(listener, (struct sockaddr *)&addr, &len);
	OK(server);
	CHECK(len == sizeof(addr) && addr.sin_addr.s_addr == inet_addr("10.0.0.1"));
	struct pollfd ready = {.fd = client, .events = POLLOUT};
	CHECK(poll(&ready, 1, 10000) == 1 && ready.revents == POLLOUT);
	len = sizeof(value);
	OK(ioth_getsockopt(client, SOL_SOCKET, SO_ERROR, &value, &len));
	CHECK(value == 0);
	on = 0;
	OK(ioth_ioctl(client, FIONBIO, &on));

	CHECK(ioth_write(client, "hello ", 6) == 6);
	struct iovec out[] = {{"wor", 3}, {"ld", 2}}, in[] = {{text, 4}, {more, 7}};
	CHECK(ioth_writev(client, out, 2) == 5);
	CHECK(ioth_recv(server, text, 11, MSG_PEEK | MSG_WAITALL) == 11);
	CHECK(ioth_readv(server, in, 2) == 11);
	CHECK(memcmp(text, "hell", 4) == 0 && memcmp(more, "o world", 7) == 0);
	/* Another descriptor for the same socket. */
	int copy = ioth_fcntl(server, F_DUPFD_CLOEXEC, 100);
	CHECK(copy >= 100);
	OK(ioth_close(server));
	int second = ioth_dup(copy), third = fcntl(copy, F_DUPFD, 200);
	CHECK(second >= 0 && third >= 200);
	CHECK(ioth_dup2(copy, second) == second);
	CHECK(ioth_dup3(copy, third, O_CLOEXEC) == third);
	FAILS(EINVAL, ioth_dup3(copy, copy, 0));
	CHECK(fcntl(third, F_GETFD) == FD_CLOEXEC);
	OK(ioth_close(second));
	OK(close(third));
	CHECK(ioth_send(copy, "bye", 3, 0) == 3);
	OK(ioth_shutdown(copy, SHUT_WR));
	CHECK(ioth_recv(client, text, sizeof(text), MSG_WAITALL) == 3);
	CHECK(ioth_read(client, text, sizeof(text)) == 0);
	OK(ioth_close(client));
	CHECK(ioth_read(copy, text, sizeof(text)) == 0);
	OK(ioth_close(copy));

	client = ioth_msocket(a, AF_INET, SOCK_STREAM, 0);
	OK(ioth_connect(client, ADDR(to)));
	server = ioth_accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	OK(server);
	CHECK(fcntl(server, F_GETFD) == FD_CLOEXEC);
	FAILS(EAGAIN, ioth_read(server, text, 1));
	OK(ioth_close(server));
	OK(ioth_close(client));
	OK(ioth_close(listener));
	FAILS(EBADF, ioth_close(listener));
}

static void interfaces(struct ioth *stack, const char *vnl)
{
	int vde0 = ioth_if_nametoindex(stack, "vde0");
	unsigned char mac[6] = {2, 0, 0x5e, 0x10, 0, 1}, found[6];
	struct in_addr addr = {inet_addr("10.0.9.1")}, net = {inet_addr("10.9.0.0")}, gw = {inet_addr("10.0.0.9")};
	struct in6_addr gw6;
	struct ifaddrs *list, *at;
	int links = 0, v4 = 0, v6 = 0;

	OK(ioth_linksetupdown(stack, vde0, 0));
	OK(ioth_linksetaddr(stack, vde0, mac));
	OK(ioth_linkgetaddr(stack, vde0, found));
	CHECK(memcmp(mac, found, 6) == 0);
	OK(ioth_linksetmtu(stack, vde0, 1400));
	OK(ioth_linksetupdown(stack, vde0, 1));
	FAILS(ENODEV, ioth_linksetupdown(stack, 4711, 1));
	FAILS(ENODEV, ioth_linkgetaddr(stack, 4711, found));
	FAILS(EINVAL, ioth_ipaddr_add(stack, AF_UNIX, &addr, 24, vde0));
	FAILS(EINVAL, ioth_ipaddr_add(stack, AF_INET, &addr, 33, vde0));
	OK(ioth_ipaddr_add(stack, AF_INET, &addr, 24, vde0));
	OK(ioth_ipaddr_del(stack, AF_INET, &addr, 24, vde0));
	FAILS(EADDRNOTAVAIL, ioth_ipaddr_del(stack, AF_INET, &addr, 24, vde0));
	OK(ioth_iproute_add(stack, AF_INET, &net, 16, &gw, vde0));
	FAILS(EEXIST, ioth_iproute_add(stack, AF_INET, &net, 16, &gw, vde0));
	OK(ioth_iproute_del(stack, AF_INET, &net, 16, &gw, vde0));
	FAILS(ESRCH, ioth_iproute_del(stack, AF_INET, &net, 16, &gw, vde0));
	OK(ioth_iproute_add(stack, AF_INET, NULL, 0, &gw, 0));
	OK(ioth_iproute_del(stack, AF_INET, NULL, 0, &gw, 0));
	int packed = nl_routedata2prefix(16, RTN_UNICAST, RT_SCOPE_UNIVERSE);
	OK(ioth_iproute_add(stack, AF_INET, &net, packed, &gw, vde0));
	OK(ioth_iproute_del(stack, AF_INET, &net, packed, &gw, vde0));
	/* As on Linux, the interface lost its IPv6 addresses when it went down. */
	CHECK(inet_pton(AF_INET6, "fd00::1", &gw6) == 1);
	OK(ioth_ipaddr_add(stack, AF_INET6, &gw6, 64, vde0));
	CHECK(inet_pton(AF_INET6, "fd00::9", &gw6) == 1);
	OK(ioth_iproute_add(stack, AF_INET6, NULL, 0, &gw6, vde0));
	OK(ioth_iproute_del(stack, AF_INET6, NULL, 0, &gw6, vde0));

	OK(ioth_iplink_add(stack, "extra0", -1, "vde", nl_iplink_strdata(IFLA_VDE_VNL, vnl)));
	OK(ioth_iplink_del(stack, "extra0", 0));
	FAILS(EEXIST, ioth_iplink_add(stack, "vde0", 0, "vde", nl_iplink_strdata(IFLA_VDE_VNL, vnl)));
	FAILS(EINVAL, ioth_iplink_add(stack, "", 0, "vde", NULL, 0));
	FAILS(EOPNOTSUPP, ioth_iplink_del(stack, "lo", 0));
	FAILS(ENODEV, ioth_iplink_del(stack, NULL, 4711));
	FAILS(EINVAL, ioth_iplink_del(stack, NULL, 0));

	OK(ioth_getifaddrs(stack, &list));
	for (at = list; at != NULL; at = at->ifa_next) {
		CHECK(at->ifa_name != NULL && at->ifa_addr != NULL);
		switch (at->ifa_addr->sa_family) {
		case AF_PACKET:
			links++;
			if (strcmp(at->ifa_name, "vde0") == 0) {
				CHECK(memcmp(((struct sockaddr_ll *)at->ifa_addr)->sll_addr, mac, 6) == 0);
				CHECK(at->ifa_flags & IFF_UP);
				CHECK(((struct rtnl_link_stats *)at->ifa_data)->tx_packets > 0);
			}
			break;
		case AF_INET:
			v4 += ((struct sockaddr_in *)at->ifa_addr)->sin_addr.s_addr == inet_addr("10.0.0.1") &&
			      ((struct sockaddr_in *)at->ifa_netmask)->sin_addr.s_addr == inet_addr("255.255.255.0");
			break;
		case AF_INET6:
			if (IN6_IS_ADDR_LINKLOCAL(&((struct sockaddr_in6 *)at->ifa_addr)->sin6_addr))
				CHECK(((struct sockaddr_in6 *)at->ifa_addr)->sin6_scope_id != 0);
			v6++;
			break;
		}
	}
	CHECK(links == 2 && v4 == 1 && v6 >= 2);
	ioth_freeifaddrs(list);
	/* One piece of memory: the C library's does as well. */
	OK(ioth_getifaddrs(stack, &list));
	freeifaddrs(list);
	ioth_freeifaddrs(NULL);

	/* A message by hand: RTM_GETLINK by index. */
	struct {
		struct nlmsghdr header;
		struct ifinfomsg info;
	} get = {{.nlmsg_len = sizeof(get), .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST}, {.ifi_index = vde0}};
	CHECK(ioth_nldialog(stack, &get.header) == vde0);
	get.info.ifi_index = 4711;
	FAILS(ENODEV, ioth_nldialog(stack, &get.header));
}

/* What programs of older days do by ioctl(2). */
static void requests(struct ioth *stack)
{
	int fd = ioth_msocket(stack, AF_INET, SOCK_DGRAM, 0), fd6 = ioth_msocket(stack, AF_INET6, SOCK_DGRAM, 0);
	struct ifreq request = {.ifr_name = "vde0"}, list[8];
	struct ifconf conf = {.ifc_len = 0, .ifc_buf = NULL};
	OK(fd);
	OK(ioth_ioctl(fd, SIOCGIFINDEX, &request));
	CHECK(request.ifr_ifindex == ioth_if_nametoindex(stack, "vde0"));
	static const struct ifreq up = {.ifr_name = "vde0", .ifr_flags = IFF_UP};
	/* A constant may be said, and not be asked into. */
	OK(ioth_ioctl(fd, SIOCSIFFLAGS, &up));
	FAILS(EFAULT, ioth_ioctl(fd, SIOCGIFMTU, &up));
	OK(ioth_ioctl(fd, SIOCGIFMTU, &request));
	CHECK(request.ifr_mtu == 1400);
	OK(ioth_ioctl(fd, SIOCGIFADDR, &request));
	CHECK(((struct sockaddr_in *)&request.ifr_addr)->sin_addr.s_addr == inet_addr("10.0.0.1"));
	/* First how many there are, then which. */
	OK(ioth_ioctl(fd, SIOCGIFCONF, &conf));
	CHECK(conf.ifc_len > 0 && conf.ifc_len <= (int)sizeof(list));
	int len = conf.ifc_len, found = 0;
	conf = (struct ifconf){.ifc_len = sizeof(list), .ifc_req = list};
	OK(ioth_ioctl(fd, SIOCGIFCONF, &conf));
	CHECK(conf.ifc_len == len);
	for (int at = 0; at * (int)sizeof(*list) < len; at++)
		found += strcmp(list[at].ifr_name, "vde0") == 0;
	CHECK(found == 1);
	conf.ifc_len = -1;
	FAILS(EINVAL, ioth_ioctl(fd, SIOCGIFCONF, &conf));
	conf = (struct ifconf){.ifc_len = sizeof(list), .ifc_buf = (char *)1};
	FAILS(EFAULT, ioth_ioctl(fd, SIOCGIFCONF, &conf));
	/* A route by a device's name. */
	char device[] = "vde0";
	struct rtentry route = {.rt_flags = RTF_UP, .rt_dev = device};
	*(struct sockaddr_in *)&route.rt_dst = ipv4("10.9.0.0", 0);
	*(struct sockaddr_in *)&route.rt_genmask = ipv4("255.255.0.0", 0);
	OK(ioth_ioctl(fd, SIOCADDRT, &route));
	FAILS(EEXIST, ioth_ioctl(fd, SIOCADDRT, &route));
	OK(ioth_ioctl(fd, SIOCDELRT, &route));
	FAILS(ESRCH, ioth_ioctl(fd, SIOCDELRT, &route));
	route.rt_dev = (char *)1;
	FAILS(EFAULT, ioth_ioctl(fd, SIOCADDRT, &route));
	/* Of IPv6 the structures are others. */
	struct in6_ifreq more = {.ifr6_prefixlen = 64, .ifr6_ifindex = ioth_if_nametoindex(stack, "vde0")};
	CHECK(inet_pton(AF_INET6, "fd00::77", &more.ifr6_addr) == 1);
	OK(ioth_ioctl(fd6, SIOCSIFADDR, &more));
	OK(ioth_ioctl(fd6, SIOCDIFADDR, &more));
	FAILS(EADDRNOTAVAIL, ioth_ioctl(fd6, SIOCDIFADDR, &more));
	OK(ioth_ioctl(fd, FIOCLEX));
	CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC);
	OK(ioth_close(fd));
	OK(ioth_close(fd6));
}

static void text(void)
{
	unsigned char mac[6] = {2, 0, 0x5e, 0x10, 0xff, 1}, found[6] = {0};
	char string[MAC_ADDRSTRLEN];

	CHECK(ioth_ntomac(mac, string, sizeof(string)) == string);
	CHECK(strcmp(string, "02:00:5e:10:ff:01") == 0);
	NONE(ENOSPC, ioth_ntomac(mac, string, sizeof(string) - 1));
	CHECK(ioth_macton("02-00-5E-10-FF-01", found) == 1);
	CHECK(memcmp(mac, found, 6) == 0);
	CHECK(ioth_macton("02:00:5e:10:ff", found) == 0);
	CHECK(ioth_macton("02:00:5e:10:ff:01:02", found) == 0);
}

static void configuration(const char *vnl)
{
	char string[512];
	char *resolv;

	snprintf(string, sizeof(string), "stack=smoltcp,vnl=%s,fqdn=host.v2.cs.unibo.it,eth,ip=10.0.0.7/24,dns=10.0.0.53", vnl);
	struct ioth *stack = ioth_newstackc(string);
	unsigned char mac[6];
	CHECK(stack != NULL);
	OK(ioth_linkgetaddr(stack, ioth_if_nametoindex(stack, "vde0"), mac));
	CHECK(ioth_ntomac(mac, string, sizeof(string)) && strcmp(string, "52:6f:03:54:fb:d3") == 0);
	CHECK((resolv = ioth_resolvconf(stack, NULL)) != NULL);
	CHECK(strcmp(resolv, "nameserver 10.0.0.53\n") == 0);
	free(resolv);
	NONE(0, ioth_resolvconf(stack, NULL));
	CHECK(ioth_config(stack, "eth,ip=fd00::7/64,domain=example.org,dns=fd00::53") == (IOTHCONF_STATIC | IOTHCONF_ETH));
	CHECK((resolv = ioth_resolvconf(stack, "iface=vde0")) != NULL);
	CHECK(strcmp(resolv, "search example.org\nnameserver fd00::53\nnameserver 10.0.0.53\n") == 0);
	free(resolv);
	NONE(ENODEV, ioth_resolvconf(stack, "iface=vde9"));
	CHECK(ioth_config(stack, "-static") >= 0);
	FAILS(EINVAL, ioth_config(stack, "nonsense"));
	FAILS(EINVAL, ioth_config(stack, "vnl=null://"));
	FAILS(ENODEV, ioth_config(stack, "iface=vde9,eth"));
	NONE(EINVAL, ioth_newstackc("stack=smoltcp,nonsense"));
	NONE(ENOTSUP, ioth_newstackc("stack=nosuchstack"));
	OK(ioth_delstack(stack));
}

static void addresses(void)
{
	struct in6_addr addr;
	unsigned char mac[6];
	char string[64];

#define IS(base, call, expected) \
	do { \
		CHECK(inet_pton(AF_INET6, base, &addr) == 1); \
		OK(call); \
		CHECK(inet_ntop(AF_INET6, &addr, string, sizeof(string)) && strcmp(string, expected) == 0); \
	} while (0)

	IS("fc00::", iothaddr_hash(&addr, "renzo.hash.local", NULL, 0), "fc00::4cc:8049:6765:d03a");
	IS("fd00:add1:5ea7:4a11::", iothaddr_hash(&addr, "test.otip.v2.cs.unibo.it", "secret_password", 51889486),
	   "fd00:add1:5ea7:4a11:78e4:bb37:f7bf:f2cf");
	OK(iothaddr_hashmac(mac, "renzo.hash.local.", "pw"));
	CHECK(ioth_ntomac(mac, string, sizeof(string)) && strcmp(string, "6e:9c:d6:5f:38:28") == 0);
	IS("2000:760::", iothaddr_hasheui64(&addr, "test.v2.cs.unibo.it", NULL), "2000:760::68d6:2fff:fe5a:5a2e");
	CHECK(ioth_macton("52:54:00:12:34:56", mac) == 1);
	IS("fe80::", iothaddr_eui64(&addr, mac), "fe80::5054:ff:fe12:3456");
	CHECK(iothaddr_otiptime(0, 0) == 0);
	uint32_t now = iothaddr_otiptime(IOTHADDR_OTIP_PERIOD, 0);
	CHECK(now > 51889486 && iothaddr_otiptime(IOTHADDR_OTIP_PERIOD, 64) - now >= 2);
}

/* A broken stream raises SIGPIPE, as with send(2). */
static volatile sig_atomic_t pipes;

static void on_pipe(int number)
{
	(void)number;
	pipes++;
	errno = 0;
}

static void broken_pipes(struct ioth *stack)
{
	struct iovec one = {"x", 1};
	struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1};
	struct sockaddr_in6 self = ipv6("::1", 80);
	int listener = ioth_msocket(stack, AF_INET6, SOCK_STREAM, 0);
	int client = ioth_msocket(stack, AF_INET6, SOCK_STREAM, 0);
	OK(ioth_bind(listener, ADDR(self)));
	OK(ioth_listen(listener, 1));
	OK(ioth_connect(client, ADDR(self)));
	OK(ioth_shutdown(client, SHUT_WR));
	CHECK(signal(SIGPIPE, on_pipe) != SIG_ERR);
	FAILS(EPIPE, ioth_write(client, "x", 1));
	FAILS(EPIPE, ioth_writev(client, &one, 1));
	FAILS(EPIPE, ioth_send(client, "x", 1, 0));
	FAILS(EPIPE, ioth_sendto(client, "x", 1, 0, NULL, 0));
	FAILS(EPIPE, ioth_sendmsg(client, &message, 0));
	CHECK(pipes == 5);
	FAILS(EPIPE, ioth_send(client, "x", 1, MSG_NOSIGNAL));
	FAILS(EPIPE, ioth_sendmsg(client, &message, MSG_NOSIGNAL));
	CHECK(pipes == 5);
	CHECK(signal(SIGPIPE, SIG_IGN) == on_pipe);
	FAILS(EPIPE, ioth_write(client, "x", 1));
	CHECK(pipes == 5);
	OK(ioth_close(client));
	OK(ioth_close(listener));
}

/* A child has the parent's sockets to close, and nodes of its own; its end does not disturb the parent. */
static void forks(struct ioth *stack, const char *vnl)
{
	struct sockaddr_in6 self = ipv6("::1", 5001);
	char text[8];
	int status, fd = ioth_msocket(stack, AF_INET6, SOCK_DGRAM, 0);
	OK(ioth_bind(fd, ADDR(self)));
	fflush(NULL);
	pid_t child = fork();
	OK(child);
	if (child == 0) {
		FAILS(ENODEV, ioth_sendto(fd, "x", 1, 0, ADDR(self)));
		FAILS(ENODEV, ioth_msocket(stack, AF_INET6, SOCK_DGRAM, 0));
		FAILS(ENODEV, ioth_config(stack, "eth"));
		FAILS(ENODEV, ioth_delstack(stack));
		struct ioth *own = ioth_newstack("smoltcp", vnl);
		CHECK(own != NULL && own != stack);
		CHECK(ioth_if_nametoindex(own, "vde0") > 0);
		OK(ioth_close(fd));
		exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	OK(child = fork());
	if (child == 0)
		exit(7);
	CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
	CHECK(ioth_sendto(fd, "still", 5, 0, ADDR(self)) == 5);
	CHECK(ioth_recv(fd, text, sizeof(text), 0) == 5);
	OK(ioth_close(fd));
}

int main(int argc, char *argv[])
{
	CHECK(argc == 2);
	const char *vnl = argv[1];
	stacks(vnl);
	struct ioth *a = node(vnl, "10.0.0.1", "fd00::1"), *b = node(vnl, "10.0.0.2", "fd00::2");
	datagrams(a, b);
	filters(a);
	streams(a, b);
	interfaces(a, vnl);
	requests(a);
	text();
	configuration(vnl);
	addresses();
	broken_pipes(b);
	forks(b, vnl);
	OK(ioth_delstack(a));
	OK(ioth_delstack(b));
	return report();
}
