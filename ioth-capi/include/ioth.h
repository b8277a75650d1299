/* ioth.h - the Internet of Threads: stacks, sockets on them, their configuration.
 * Documentation: ioth(3), ioth_sockets(3), ioth_netlink(3). SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef IOTH_H
#define IOTH_H

/* Programs written for libioth have these from it. */
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A stack: one node of the Internet. NULL, where one is asked for, is the default stack. */
struct ioth;

/* --- stacks: ioth(3) --- */

struct ioth *ioth_newstack(const char *stack, const char *vnl);
struct ioth *ioth_newstackl(const char *stack, const char *vnl, ... /* (char *) NULL */) __attribute__((__sentinel__));
struct ioth *ioth_newstackv(const char *stack, const char *vnlv[]);
int ioth_delstack(struct ioth *iothstack);

void ioth_set_defstack(struct ioth *iothstack);
struct ioth *ioth_get_defstack(void);

int ioth_msocket(struct ioth *iothstack, int domain, int type, int protocol);
int ioth_socket(int domain, int type, int protocol);

void ioth_set_license(const char *license);

/* --- Berkeley's calls: ioth_sockets(3) --- */

int ioth_close(int fd);
int ioth_bind(int sockfd, const struct sockaddr *addr, socklen_t addrlen);
int ioth_connect(int sockfd, const struct sockaddr *addr, socklen_t addrlen);
int ioth_listen(int sockfd, int backlog);
int ioth_accept(int sockfd, struct sockaddr *__restrict addr, socklen_t *__restrict addrlen);
int ioth_accept4(int sockfd, struct sockaddr *__restrict addr, socklen_t *__restrict addrlen, int flags);
int ioth_getsockname(int sockfd, struct sockaddr *__restrict addr, socklen_t *__restrict addrlen);
int ioth_getpeername(int sockfd, struct sockaddr *__restrict addr, socklen_t *__restrict addrlen);
int ioth_setsockopt(int sockfd, int level, int optname, const void *optval, socklen_t optlen);
int ioth_getsockopt(int sockfd, int level, int optname, void *__restrict optval,
		    socklen_t *__restrict optlen);
int ioth_shutdown(int sockfd, int how);
int ioth_dup(int oldfd);
int ioth_dup2(int oldfd, int newfd);
int ioth_dup3(int oldfd, int newfd, int flags);
int ioth_ioctl(int fd, unsigned long request, ...);
int ioth_fcntl(int fd, int cmd, ... /* arg */);

ssize_t ioth_read(int fd, void *buf, size_t count);
ssize_t ioth_readv(int fd, const struct iovec *iov, int iovcnt);
ssize_t ioth_recv(int sockfd, void *buf, size_t len, int flags);
ssize_t ioth_recvfrom(int sockfd, void *__restrict buf, size_t len, int flags,
		      struct sockaddr *__restrict src_addr, socklen_t *__restrict addrlen);
ssize_t ioth_recvmsg(int sockfd, struct msghdr *msg, int flags);

ssize_t ioth_write(int fd, const void *buf, size_t count);
ssize_t ioth_writev(int fd, const struct iovec *iov, int iovcnt);
ssize_t ioth_send(int sockfd, const void *buf, size_t len, int flags);
ssize_t ioth_sendto(int sockfd, const void *buf, size_t len, int flags, const struct sockaddr *dest_addr,
		    socklen_t addrlen);
ssize_t ioth_sendmsg(int sockfd, const struct msghdr *msg, int flags);

/* struct mmsghdr is there for programs that define _GNU_SOURCE, as with sendmmsg(2). */
struct mmsghdr;
struct timespec;
int ioth_sendmmsg(int sockfd, struct mmsghdr *msgvec, unsigned int vlen, int flags);
int ioth_recvmmsg(int sockfd, struct mmsghdr *msgvec, unsigned int vlen, int flags, struct timespec *timeout);

/* --- interfaces, addresses, routes: ioth_netlink(3) --- */

int ioth_getifaddrs(struct ioth *iothstack, struct ifaddrs **ifap);
void ioth_freeifaddrs(struct ifaddrs *ifa);

int ioth_if_nametoindex(struct ioth *iothstack, const char *ifname);
int ioth_linksetupdown(struct ioth *iothstack, unsigned int ifindex, int updown);
int ioth_linksetaddr(struct ioth *iothstack, unsigned int ifindex, const void *macaddr);
int ioth_linkgetaddr(struct ioth *iothstack, unsigned int ifindex, void *macaddr);
int ioth_linksetmtu(struct ioth *iothstack, unsigned int ifindex, unsigned int mtu);
int ioth_ipaddr_add(struct ioth *iothstack, int family, const void *addr, int prefixlen, unsigned int ifindex);
int ioth_ipaddr_del(struct ioth *iothstack, int family, const void *addr, int prefixlen, unsigned int ifindex);
int ioth_iproute_add(struct ioth *iothstack, int family, const void *dst_addr, int dst_prefixlen,
		     const void *gw_addr, unsigned int ifindex);
int ioth_iproute_del(struct ioth *iothstack, int family, const void *dst_addr, int dst_prefixlen,
		     const void *gw_addr, unsigned int ifindex);

/* One attribute of what a type of interface wants to know (IFLA_INFO_DATA). */
struct nl_iplink_data {
	int tag;
	size_t len;
	const void *data;
};

/* The attribute of the type vde: its VNL. */
#define IFLA_VDE_VNL 1

/* ifd and nifd of ioth_iplink_add for one attribute that is a string. */
#define nl_iplink_strdata(tag, string) \
	((struct nl_iplink_data[]){{(tag), strlen(string) + 1, (string)}}), 1

int ioth_iplink_add(struct ioth *iothstack, const char *ifname, unsigned int ifindex, const char *type,
		    struct nl_iplink_data *ifd, int nifd);
int ioth_iplink_del(struct ioth *iothstack, const char *ifname, unsigned int ifindex);
int ioth_nldialog(struct ioth *iothstack, const void *message);

/* For the prefixlen of ioth_ipaddr_add and ioth_ipaddr_del: IFA_F_* and RT_SCOPE_* beside the length. */
static __inline__ int nl_addrdata2prefix(unsigned char prefixlen, unsigned char flags, unsigned char scope)
{
	return (0x70 << 24) | (flags << 16) | (scope << 8) | prefixlen;
}

/* For the dst_prefixlen of ioth_iproute_add and ioth_iproute_del: RTN_* and RT_SCOPE_* beside the length. */
static __inline__ int nl_routedata2prefix(unsigned char prefixlen, unsigned char type, unsigned char scope)
{
	return (0x60 << 24) | (type << 16) | (scope << 8) | prefixlen;
}

/* Room for the text of a MAC address with its NUL: 02:00:5e:10:00:01 */
#define MAC_ADDRSTRLEN 18

const char *ioth_ntomac(const void *macaddr, char *str, size_t size);
int ioth_macton(const char *str, void *macaddr);

#ifdef __cplusplus
}
#endif

#endif
