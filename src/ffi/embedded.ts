/**
 * The libraries that this package carries, by what the runtime calls their machine, as in
 * `linux-x64`: each compressed by brotli, in base64, and the SHA-256 of what that gives.
 *
 * A source checkout carries none and uses its own build. A package has another file in this place,
 * written by `tools/package/embed.mjs`.
 */
export const libraries: Readonly<
  Record<string, { readonly data: string; readonly sha256: string }>
> = {};
