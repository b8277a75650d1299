/* What programs written for libioth may take for granted: includes, types, arguments. argv[1] names a network. */
#include <ioth.h>
#include <iothaddr.h>
#include <iothconf.h>

#include "check.h"

/* By a pointer of the type that libioth's function has: a header that says otherwise does not compile. */
static struct ioth *(*const newstack)(const char *, const char *) = ioth_newstack;
static struct ioth *(*const newstackv)(const char *, const char *[]) = ioth_newstackv;
static int (*const delstack)(struct ioth *) = ioth_delstack;
static void (*const set_defstack)(struct ioth *) = ioth_set_defstack;
static struct ioth *(*const get_defstack)(void) = ioth_get_defstack;
static void (*const set_license)(const char *) = ioth_set_license;
static int (*const msocket)(struct ioth *, int, int, int) = ioth_msocket;
static int (*const accepts)(int, struct sockaddr *, socklen_t *) = ioth_accept;
static int (*const getsockopts)(int, int, int, void *, socklen_t *) = ioth_getsockopt;
static ssize_t (*const recvfroms)(int, void *, size_t, int, struct sockaddr *, socklen_t *) = ioth_recvfrom;
static ssize_t (*const sendtos)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) = ioth_sendto;
static int (*const getifaddr)(struct ioth *, struct ifaddrs **) = ioth_getifaddrs;
static void (*const freeifaddr)(struct ifaddrs *) = ioth_freeifaddrs;
static const char *(*const ntomac)(const void *, char *, size_t) = ioth_ntomac;
static int (*const macton)(const char *, void *) = ioth_macton;
static int (*const config)(struct ioth *, const char *) = ioth_config;
static struct ioth *(*const newstackc)(const char *) = ioth_newstackc;
static char *(*const resolvconf)(struct ioth *, const char *) = ioth_resolvconf;

/* The netlink functions are inline there and take any pointer as the stack. */
static int plug(void *stack, void *addr, void *gateway)
{
	struct ifreq ifreq = {.ifr_name = "vde0"};
	int fd = ioth_msocket(stack, AF_INET, SOCK_DGRAM, 0);
	int index = ioth_if_nametoindex(stack, "vde0");
	unsigned char mac[6], again[6];
	char text[MAC_ADDRSTRLEN];
	const char *written = ntomac("\2\0\0\0\0\7", text, sizeof(text));
	CHECK(written == text && macton(text, mac) == 1 && macton("2.0", mac) == 0);
	OK(ioth_linksetaddr(stack, index, mac));
	OK(ioth_linksetupdown(stack, index, 1));
	OK(ioth_linkgetaddr(stack, index, again));
	CHECK(memcmp(mac, again, sizeof(mac)) == 0);
	OK(ioth_linksetmtu(stack, index, 1400));
	OK(ioth_ipaddr_add(stack, AF_INET, addr, nl_addrdata2prefix(24, 0, RT_SCOPE_UNIVERSE), index));
	OK(ioth_iproute_add(stack, AF_INET, NULL, 0, gateway, 0));
	OK(ioth_iproute_del(stack, AF_INET, NULL, nl_routedata2prefix(0, RTN_UNICAST, RT_SCOPE_UNIVERSE), gateway, 0));
	OK(ioth_ipaddr_del(stack, AF_INET, addr, 24, index));
	OK(ioth_ipaddr_add(stack, AF_INET, addr, 24, index));
	FAILS(EEXIST, ioth_iplink_add(stack, "vde0", 0, "vde", nl_iplink_strdata(IFLA_VDE_VNL, "null://")));
	FAILS(ENODEV, ioth_iplink_del(stack, "vde7", 0));

	struct {
		struct nlmsghdr header;
		struct ifinfomsg link;
	} ask = {
		.header = {.nlmsg_len = sizeof(ask), .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
		.link = {.ifi_index = index},
	};
	CHECK(ioth_nldialog(stack, &ask) == index);

	/* The third argument is a pointer, and a long. */
	OK(ioth_ioctl(fd, SIOCGIFINDEX, &ifreq));
	CHECK(ifreq.ifr_ifindex == index && strlen(ifreq.ifr_name) < IFNAMSIZ);
	OK(ioth_ioctl(fd, SIOCGIFFLAGS, (void *)&ifreq));
	CHECK(ifreq.ifr_flags & IFF_UP);
	OK(ioth_fcntl(fd, F_SETFL, (long)O_NONBLOCK));
	CHECK(ioth_fcntl(fd, F_GETFL, 0L) & O_NONBLOCK);
	OK(ioth_close(fd));
	return index;
}

/* These do not tell how it went. */
static void names(void)
{
	unsigned char addr[16] = {0x20, 0, 0x07, 0x60}, mac[6];
	void *eui64 = mac;
	iothaddr_hash(addr, "test.v2.cs.unibo.it", NULL, iothaddr_otiptime(0, 0));
	CHECK(addr[8] == 0x68 && addr[15] == 0x2e);
	iothaddr_hashmac(mac, "test.v2.cs.unibo.it", NULL);
	memset(addr + 8, 0, 8);
	iothaddr_eui64(addr, eui64);
	CHECK(addr[11] == 0xff && addr[12] == 0xfe);
	memset(addr + 8, 0, 8);
	iothaddr_hasheui64(addr, "test.v2.cs.unibo.it", NULL);
	CHECK(addr[8] == 0x68 && addr[11] == 0xff);
	CHECK(iothaddr_otiptime(32, 0) <= time(NULL) / 32);
}

int main(int argc, char *argv[])
{
	const char *vnls[] = {argv[argc - 1], NULL};
	char words[256], buffer[8];
	unsigned char own[] = {10, 0, 0, 1}, gateway[] = {10, 0, 0, 254};
	struct ifaddrs *list;

	set_license("SPDX-License-Identifier: MIT");
	struct ioth *stack = newstackv("smoltcp", vnls);
	CHECK(stack != NULL);
	plug(stack, own, gateway);
	set_defstack(stack);
	CHECK(get_defstack() == stack);
	OK(getifaddr(stack, &list));
	CHECK(list != NULL);
	freeifaddr(list);

	CHECK(config(stack, "ip=10.0.1.1/24,dns=10.0.1.9") == (IOTHCONF_STATIC));
	char *resolv = resolvconf(stack, "iface=vde0");
	CHECK(resolv != NULL);
	free(resolv);
	snprintf(words, sizeof(words), "stack=smoltcp,vnl=%s,eth,ip=10.0.0.2/24", argv[argc - 1]);
	struct ioth *other = newstackc(words);
	CHECK(other != NULL);

	struct sockaddr from;
	socklen_t len = sizeof(from), size = sizeof(int);
	int here = ioth_socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), type;
	OK(getsockopts(here, SOL_SOCKET, SO_TYPE, &type, &size));
	CHECK(type == SOCK_RAW);
	FAILS(EAGAIN, recvfroms(here, buffer, sizeof(buffer), MSG_DONTWAIT, &from, &len));
	FAILS(EOPNOTSUPP, accepts(here, NULL, NULL));
	FAILS(EBADF, sendtos(-1, buffer, 1, 0, NULL, 0));
	FAILS(EBUSY, delstack(stack));
	OK(ioth_close(here));
	/* libioth has ENOSYS for what is none of its sockets; close(2) would say this. */
	FAILS(EBADF, ioth_close(here));
	FAILS(EBADF, ioth_close(1));
	set_defstack(NULL);
	OK(delstack(other));
	OK(delstack(stack));
	struct ioth *kernel = newstack(NULL, NULL);
	CHECK(kernel != NULL);
	int native = msocket(kernel, AF_INET, SOCK_DGRAM, 0);
	OK(native);
	OK(ioth_close(native));
	OK(delstack(kernel));
	names();
	return report();
}
