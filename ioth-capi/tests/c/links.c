/* Interfaces of kind vde that are made and removed while their stacks run. argv[1] names a network. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include <ioth.h>

#include "check.h"

/* A second interface on the network, up, with an address. */
static unsigned int grow(struct ioth *stack, const char *vnl, const char *addr)
{
	struct in_addr bytes;
	int made = ioth_iplink_add(stack, "extra0", -1, "vde", nl_iplink_strdata(IFLA_VDE_VNL, vnl));
	CHECK(made > 0 && ioth_if_nametoindex(stack, "extra0") == made);
	CHECK(inet_pton(AF_INET, addr, &bytes) == 1);
	OK(ioth_linksetupdown(stack, made, 1));
	OK(ioth_ipaddr_add(stack, AF_INET, &bytes, 24, made));
	return made;
}

static void datagrams_pass(struct ioth *from, struct ioth *to)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(4000)};
	struct timeval patience = {.tv_sec = 20};
	char buffer[8];
	int sender = ioth_msocket(from, AF_INET, SOCK_DGRAM, 0), receiver = ioth_msocket(to, AF_INET, SOCK_DGRAM, 0);
	CHECK(sender >= 0 && receiver >= 0);
	CHECK(inet_pton(AF_INET, "10.7.0.2", &addr.sin_addr) == 1);
	OK(ioth_bind(receiver, (struct sockaddr *)&addr, sizeof(addr)));
	OK(ioth_setsockopt(receiver, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)));
	CHECK(ioth_sendto(sender, "ciao", 4, 0, (struct sockaddr *)&addr, sizeof(addr)) == 4);
	CHECK(ioth_recv(receiver, buffer, sizeof(buffer), 0) == 4 && memcmp(buffer, "ciao", 4) == 0);
	OK(ioth_close(sender));
	OK(ioth_close(receiver));
}

int main(int argc, char *argv[])
{
	struct ioth *a, *b;
	struct sockaddr_in far = {.sin_family = AF_INET, .sin_port = htons(4000)};
	CHECK(argc == 2 && inet_pton(AF_INET, "10.7.0.2", &far.sin_addr) == 1);
	a = ioth_newstack("smoltcp", "null://");
	b = ioth_newstack("smoltcp", "null://");
	CHECK(a != NULL && b != NULL);

	unsigned int of_a = grow(a, argv[1], "10.7.0.1"), of_b = grow(b, argv[1], "10.7.0.2");
	datagrams_pass(a, b);

	/* Nothing is made of what is wrong. */
	FAILS(EEXIST, ioth_iplink_add(a, "extra0", -1, "vde", nl_iplink_strdata(IFLA_VDE_VNL, argv[1])));
	FAILS(EOPNOTSUPP, ioth_iplink_add(a, "extra1", -1, "dummy", NULL, 0));
	FAILS(EOPNOTSUPP, ioth_iplink_add(a, "extra1", 77, "vde", nl_iplink_strdata(IFLA_VDE_VNL, argv[1])));
	FAILS(EINVAL, ioth_iplink_add(a, "extra1", -1, "vde", NULL, 0));
	FAILS(EINVAL, ioth_iplink_add(a, "a/b", -1, "vde", nl_iplink_strdata(IFLA_VDE_VNL, argv[1])));
	FAILS(ENOENT, ioth_iplink_add(a, "extra1", -1, "vde", nl_iplink_strdata(IFLA_VDE_VNL, "vde:///nowhere/ever")));
	CHECK(ioth_iplink_add(a, "extra1", -1, "vde", nl_iplink_strdata(IFLA_VDE_VNL, "nosuch://")) == -1);
	FAILS(ENODEV, ioth_if_nametoindex(a, "extra1"));

	/* Gone with its addresses and routes; the other interfaces stay, and numbers are not given again. */
	OK(ioth_iplink_del(a, "extra0", 0));
	FAILS(ENODEV, ioth_iplink_del(a, NULL, of_a));
	FAILS(ENODEV, ioth_if_nametoindex(a, "extra0"));
	CHECK(ioth_if_nametoindex(a, "vde0") > 0);
	int fd = ioth_msocket(a, AF_INET, SOCK_DGRAM, 0);
	FAILS(ENETUNREACH, ioth_connect(fd, (struct sockaddr *)&far, sizeof(far)));
	OK(ioth_close(fd));
	CHECK(grow(a, argv[1], "10.7.0.1") > of_a);
	datagrams_pass(a, b);
	OK(ioth_iplink_del(a, NULL, ioth_if_nametoindex(a, "vde0")));
	datagrams_pass(a, b);

	/* Without an index asked for there is none in the answer. */
	CHECK(ioth_iplink_add(b, NULL, 0, "vde", nl_iplink_strdata(IFLA_VDE_VNL, "null://")) == 0);
	CHECK(ioth_if_nametoindex(b, "vde1") > (int)of_b);
	OK(ioth_delstack(a));
	OK(ioth_delstack(b));
	return report();
}
