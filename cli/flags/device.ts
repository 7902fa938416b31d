/** `--device /dev/host[:/dev/container[:rwm]]`, as `docker run` reads it. */
import { create } from "@bufbuild/protobuf";
import { bad, good, type Parsed } from "../../common/model/parsed.ts";
import { type Device, DeviceSchema } from "../../proto/gen/swarm/v1/types_pb.js";

/** A second part that is no path says what may be done with the device. */
export function parseDevice(text: string): Parsed<Device> {
  const [hostPath = "", second = "", third = "", ...rest] = text.split(":");
  const short = second !== "" && !second.startsWith("/") && third === "";
  const [containerPath, permissions] = short ? ["", second] : [second, third];
  const paths = [hostPath, containerPath || hostPath];
  if (rest.length > 0 || paths.some((path) => !path.startsWith("/"))) {
    return bad(`${JSON.stringify(text)}: a device is written /dev/host[:/dev/container[:rwm]]`);
  }
  if (!/^[rwm]{0,3}$/.test(permissions)) return bad(`invalid device mode: ${JSON.stringify(permissions)}`);
  return good(create(DeviceSchema, { hostPath, containerPath, permissions }));
}

/** Which device of a container it is: where the container finds it. */
export function devicePath({ hostPath, containerPath }: Device): string {
  return containerPath || hostPath;
}
