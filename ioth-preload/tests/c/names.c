/* Names and interfaces, as the node of the tests has them. */
#include "check.h"
#include <ifaddrs.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <netdb.h>
#include <netpacket/packet.h>
#include <resolv.h>

static void addresses(void)
{
	struct addrinfo hints = {.ai_flags = AI_CANONNAME, .ai_socktype = SOCK_STREAM}, *list = NULL;
	errno = 4242;
	CHECK(getaddrinfo("www.test", "http", &hints, &list) == 0 && errno == 4242);
	CHECK(strcmp(list->ai_canonname, "canonical.test") == 0);
	CHECK(list->ai_family == AF_INET6 && list->ai_socktype == SOCK_STREAM && list->ai_protocol == IPPROTO_TCP);
	CHECK(list->ai_addrlen == sizeof(struct sockaddr_in6) && list->ai_flags == AI_CANONNAME);
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)list->ai_addr;
	CHECK(v6->sin6_family == AF_INET6 && v6->sin6_addr.s6_addr[15] == 7);
	struct addrinfo *next = list->ai_next;
	struct sockaddr_in *v4 = (struct sockaddr_in *)next->ai_addr;
	CHECK(next->ai_addrlen == sizeof(*v4) && v4->sin_addr.s_addr == htonl(0x0a010203));
	CHECK(next->ai_canonname == NULL && next->ai_next == NULL);
	freeaddrinfo(list);

	CHECK(getaddrinfo("no.test", NULL, NULL, &list) == EAI_NONAME);
	CHECK(getaddrinfo("error.test", NULL, NULL, &list) == EAI_SYSTEM && errno == EHOSTDOWN);
	char longest[5000];
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	CHECK(getaddrinfo(longest, NULL, NULL, &list) == EAI_NONAME);
}

static void info(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(80)};
	addr.sin_addr.s_addr = htonl(0x0a010203);
	char host[32], service[32];
	CHECK(getnameinfo((struct sockaddr *)&addr, sizeof(addr), host, sizeof(host), service, sizeof(service), 0) == 0);
	CHECK(strcmp(host, "www.test") == 0 && strcmp(service, "http") == 0);
	CHECK(getnameinfo((struct sockaddr *)&addr, sizeof(addr), host, 9, NULL, 0, 0) == 0);
	CHECK(getnameinfo((struct sockaddr *)&addr, sizeof(addr), host, 8, NULL, 0, 0) == EAI_OVERFLOW);
	CHECK(getnameinfo((struct sockaddr *)&addr, sizeof(addr), NULL, 0, NULL, 0, 0) == EAI_NONAME);
	struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "/a/path"};
	CHECK(getnameinfo((struct sockaddr *)&local, sizeof(local), NULL, 0, service, sizeof(service), 0) == 0);
	CHECK(strcmp(service, "/a/path") == 0);
}

static void check_host(const struct hostent *host)
{
	CHECK(strcmp(host->h_name, "www.test") == 0 && host->h_addrtype == AF_INET && host->h_length == 4);
	CHECK(strcmp(host->h_aliases[0], "alias.test") == 0 && strcmp(host->h_aliases[1], "other.test") == 0);
	CHECK(host->h_aliases[2] == NULL && host->h_addr_list[2] == NULL);
	CHECK(memcmp(host->h_addr_list[0], "\x0a\x01\x02\x03", 4) == 0);
	CHECK(memcmp(host->h_addr_list[1], "\x0a\x01\x02\x04", 4) == 0);
}

static void hosts(void)
{
	check_host(gethostbyname("www.test"));
	check_host(gethostbyname2("www.test", AF_INET));
	check_host(gethostbyaddr("\x0a\x01\x02\x03", 4, AF_INET));
	CHECK(gethostbyname("no.test") == NULL && h_errno == HOST_NOT_FOUND);
	CHECK(gethostbyaddr("\x0a\x01\x02\x03", 5, AF_INET) == NULL && h_errno == NETDB_INTERNAL && errno == EINVAL);

	struct hostent host, *result = &host;
	char buffer[512];
	int error;
	CHECK(gethostbyname_r("www.test", &host, buffer, sizeof(buffer), &result, &error) == 0 && result == &host);
	check_host(result);
	CHECK(gethostbyname2_r("www.test", AF_INET, &host, buffer + 1, sizeof(buffer) - 1, &result, &error) == 0);
	check_host(result);
	CHECK(gethostbyaddr_r("\x0a\x01\x02\x03", 4, AF_INET, &host, buffer, sizeof(buffer), &result, &error) == 0);
	check_host(result);
	for (size_t len = 0; gethostbyname_r("www.test", &host, buffer, len, &result, &error) != 0; len++) {
		CHECK(len < sizeof(buffer) && result == NULL);
		CHECK(error == NETDB_INTERNAL && errno == ERANGE);
		result = &host;
	}
	check_host(result);
	CHECK(gethostbyname_r("no.test", &host, buffer, sizeof(buffer), &result, &error) == 0);
	CHECK(result == NULL && error == HOST_NOT_FOUND);
	CHECK(gethostbyname_r("data.test", &host, buffer, sizeof(buffer), &result, &error) == 0);
	CHECK(result == NULL && error == NO_DATA);
	CHECK(gethostbyname_r("later.test", &host, buffer, sizeof(buffer), &result, &error) == EAGAIN);
	CHECK(result == NULL && error == TRY_AGAIN);
}

static void interfaces(void)
{
	errno = 4242;
	CHECK(if_nametoindex("port299") == 300 && errno == 4242);
	CHECK(if_nametoindex("port300") == 0 && errno == ENODEV);
	CHECK(if_nametoindex("a name that is too long") == 0 && errno == ENODEV);
	char name[IF_NAMESIZE];
	CHECK(if_indextoname(7, name) == name && strcmp(name, "port6") == 0);
	CHECK(if_indextoname(301, name) == NULL && errno == ENXIO);

	struct if_nameindex *names = if_nameindex();
	CHECK(names);
	int count = 0;
	for (; names[count].if_index; count++) {
		snprintf(name, sizeof(name), "port%d", count);
		CHECK(strcmp(names[count].if_name, name) == 0 && names[count].if_index == (unsigned)count + 1);
	}
	CHECK(count == 300 && names[count].if_name == NULL);
	if_freenameindex(names);

	struct ifaddrs *list;
	OK(getifaddrs(&list));
	count = 0;
	for (struct ifaddrs *entry = list; entry; entry = entry->ifa_next, count++) {
		snprintf(name, sizeof(name), "port%d", count % 300);
		CHECK(strcmp(entry->ifa_name, name) == 0 && entry->ifa_flags == IFF_UP);
		CHECK(entry->ifa_addr->sa_family == (count < 300 ? AF_PACKET : AF_INET));
		CHECK(!entry->ifa_netmask == (count < 300) && entry->ifa_broadaddr == NULL);
		if (count < 300)
			CHECK(((struct rtnl_link_stats *)entry->ifa_data)->rx_packets == 0x09090909);
	}
	CHECK(count == 600);
	freeifaddrs(list);
}

static void resolver(void)
{
	unsigned char answer[1000];
	memset(answer, 0xff, sizeof(answer));
	CHECK(res_query("www.test", 1, 1, answer, 100) == 600);
	CHECK(answer[99] == 0 && answer[100] == 0xff);
	CHECK(res_search("www.test", 1, 1, answer, sizeof(answer)) == 600 && answer[599] == 1);
	CHECK(res_querydomain("www", "search.test", 1, 1, answer, sizeof(answer)) == 600);
	CHECK(res_query("no.test", 1, 1, answer, sizeof(answer)) == -1 && h_errno == HOST_NOT_FOUND);
	CHECK(answer[0] == 3);
	struct __res_state state;
	memset(&state, 0, sizeof(state));
	CHECK(res_nquery(&state, "no.test", 1, 1, answer, sizeof(answer)) == -1);
	CHECK(state.res_h_errno == HOST_NOT_FOUND);
	CHECK(res_nsearch(&state, "www.test", 1, 1, answer, sizeof(answer)) == 600);
	CHECK(res_nquerydomain(&state, "www", "search.test", 1, 1, answer, sizeof(answer)) == 600);
	CHECK(res_send((const unsigned char *)"query", 5, answer, sizeof(answer)) == 5);
	CHECK(memcmp(answer, "yreuq", 5) == 0);
	CHECK(res_nsend(&state, (const unsigned char *)"query", 5, answer, sizeof(answer)) == 5);
}

/* The C library's own. */
static void native(void)
{
	struct addrinfo *list;
	CHECK(getaddrinfo("127.0.0.1", "80", NULL, &list) == 0);
	freeaddrinfo(list);
	CHECK(gethostbyname("127.0.0.1"));
	CHECK(if_nametoindex("lo") == 1);
	struct if_nameindex *names = if_nameindex();
	CHECK(names && strcmp(names[0].if_name, "lo") == 0);
	if_freenameindex(names);
	struct ifaddrs *addrs;
	OK(getifaddrs(&addrs));
	freeifaddrs(addrs);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"addresses", addresses},
		{"info", info},
		{"hosts", hosts},
		{"interfaces", interfaces},
		{"resolver", resolver},
		{"native", native},
		{NULL, NULL},
	};
	return run_test(tests, argc > 1 ? argv[1] : NULL);
}
