/**
 * Credentials of a channel that stays closed. grpc-js (1.14) forgets to tell the connection of a closed channel that was to
 * be tried again: once the server is back it connects, and is kept alive by a channel that nobody has. An agent that waits for a
 * restarted manager, with a channel for each try, would come back with several connections.
 */
import { ChannelCredentials, type experimental } from "@grpc/grpc-js";

type Arguments = Parameters<ChannelCredentials["_createSecureConnector"]>;

export class ClosingCredentials extends ChannelCredentials {
  readonly #inner: ChannelCredentials;
  #isClosed = false;

  constructor(inner: ChannelCredentials) {
    super();
    this.#inner = inner;
  }

  /** No connection begins from now on. */
  close(): void {
    this.#isClosed = true;
  }

  _isSecure(): boolean {
    return this.#inner._isSecure();
  }

  _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  _createSecureConnector(...args: Arguments): experimental.SecureConnector {
    const connector = this.#inner._createSecureConnector(...args);
    return {
      connect: (socket) => connector.connect(socket),
      waitForReady: async () => {
        if (this.#isClosed) throw new Error("the channel is closed");
        await connector.waitForReady();
      },
      getCallCredentials: () => connector.getCallCredentials(),
      destroy: () => connector.destroy(),
    };
  }
}
