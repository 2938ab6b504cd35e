// What the page asks the server. Addresses are relative: the token is in the page's own.

async function answer(response) {
  const body = await response.json();
  if (!response.ok) throw new Error(body.error);
  return body;
}

export const state = async () => answer(await fetch("api/state"));

export const look = async (frame, signal) => answer(await fetch(`api/look/${frame}`, { signal }));

export const ask = async (what, more = {}) =>
  answer(await fetch("api/do", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ do: what, ...more }),
  }));

export async function picture(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}
