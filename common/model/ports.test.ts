import { describe, expect, test } from "vitest";
import { PortConfig_PublishMode } from "../../proto/gen/swarm/v1/types_pb.js";
import { formatServicePorts, parsePublish, protocolName } from "./ports.ts";

describe("--publish", () => {
  test.each([
    ["8080:80", "8080->80/tcp ingress"],
    ["80", "0->80/tcp ingress"],
    ["0:80", "0->80/tcp ingress"],
    ["53:53/udp", "53->53/udp ingress"],
    ["8000-8001:80-81", "8000->80/tcp ingress, 8001->81/tcp ingress"],
    ["published=8080,target=80,mode=host,protocol=sctp", "8080->80/sctp host"],
    ["target=80", "0->80/tcp ingress"],
    ["70000:80", 'invalid hostPort: "70000"'],
    ["80:0", "invalid containerPort: 0"],
    ["127.0.0.1:8080:80", "127.0.0.1:8080->80/tcp ingress"],
    ["[::1]:8080:80/udp", "::1:8080->80/udp ingress"],
    ["192.0.2.1::80", "192.0.2.1:0->80/tcp ingress"],
    ["target=80,published=8080,host-ip=192.0.2.1", "192.0.2.1:8080->80/tcp ingress"],
    ["localhost:8080:80", 'invalid IP address: "localhost"'],
    [":8080:80", 'invalid IP address: ""'],
    ["1.2.3.4:1:2:3", 'invalid publish "1.2.3.4:1:2:3": [address:][published:]target[/protocol]'],
    ["target=80,host-ip=all", 'invalid IP address: "all"'],
    ["8000-8010:80-82", "invalid ranges specified for container and host Ports: 80-82 and 8000-8010"],
    ["80:80/icmp", 'invalid protocol in "80:80/icmp": tcp, udp or sctp'],
    ["published=80", 'missing mandatory field "target"'],
    ["target=80,mode=vip", 'invalid publish mode value "vip": ingress or host'],
    ["target=80,colour=red", 'invalid field key "colour": target, published, protocol, mode, host-ip or name'],
    ["", 'invalid containerPort: ""'],
  ])("%s", (text, expected) => {
    const parsed = parsePublish(text);
    const shown = parsed.ok
      ? parsed.value
          .map(
            (port) =>
              `${port.hostIp === "" ? "" : `${port.hostIp}:`}${port.publishedPort}->${port.targetPort}/${protocolName(port.protocol)} ${PortConfig_PublishMode[port.publishMode].toLowerCase()}`,
          )
          .join(", ")
      : parsed.problem;
    expect(shown).toBe(expected);
  });
});

test("neighbours are joined in lists", () => {
  const ports = ["8000-8002:80-82", "127.0.0.1:8003-8004:83-84", "53:53/udp", "9000:80"].flatMap((text) => {
    const parsed = parsePublish(text);
    return parsed.ok ? parsed.value : [];
  });
  expect(formatServicePorts(ports)).toBe(
    "*:8000-8002->80-82/tcp, *:9000->80/tcp, 127.0.0.1:8003-8004->83-84/tcp, *:53->53/udp",
  );
});
