/* A node of this process's own, 10.0.0.1, sends "ciao" to UDP port 5000 of 10.0.0.2 on the switch at /tmp/hub. */
#include <unistd.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <ioth.h>

int main(int argc, char *argv[]) {
    struct ioth *stack = ioth_newstack("smoltcp", "vde:///tmp/hub");
    struct in_addr myaddr = {.s_addr = inet_addr("10.0.0.1")};
    int ifindex = ioth_if_nametoindex(stack, "vde0");
    ioth_ipaddr_add(stack, AF_INET, &myaddr, 24, ifindex);
    ioth_linksetupdown(stack, ifindex, 1);

    struct sockaddr_in dst = {
        .sin_family = AF_INET,
        .sin_port = htons(5000),
        .sin_addr.s_addr = inet_addr("10.0.0.2")
    };
    int fd = ioth_msocket(stack, AF_INET, SOCK_DGRAM, 0);
    ioth_sendto(fd, "ciao\n", 5, 0, (void *) &dst, sizeof(dst));
    ioth_close(fd);
}
