/**
 * The libraries that this package carries, by platform and architecture as in `linux-x64`: each
 * compressed by brotli, in base64, with the SHA-256 of the uncompressed bytes.
 *
 * A source checkout carries none and uses its own build. In a package this file is another one,
 * written by `tools/package/embed.mjs`.
 */
export const libraries: Readonly<
  Record<string, { readonly data: string; readonly sha256: string }>
> = {};
