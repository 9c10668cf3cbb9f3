// @ts-check
/** Guidelines that an admin wrote, built from the server's tree of elements; nothing is parsed as HTML. */

import { make } from "../dom.js";

const TAGS = ["h3", "h4", "p", "ul", "ol", "li", "blockquote", "strong", "em", "code", "pre", "br", "hr"];

/**
 * Builds the nodes of a tree.
 * @param {any[]} tree
 * @returns {(Node | string)[]}
 */
export function buildMarkdown(tree) {
  return tree.map((node) => {
    if (typeof node === "string") return node;
    const children = buildMarkdown(node.children);
    if (node.tag === "a" && node.href.startsWith("https://")) {
      return make("a", { href: node.href, rel: "noopener noreferrer", target: "_blank" }, ...children);
    }
    if (node.tag === "img" && /^[0-9a-f]{32}$/.test(node.item)) {
      return make("figure", {}, make("img", { src: `/api/pictures/${node.item}/result?size=view`, alt: node.caption, loading: "lazy" }),
        node.caption ? make("figcaption", {}, node.caption) : null);
    }
    return TAGS.includes(node.tag) ? make(node.tag, {}, ...children) : make("span", {}, ...children);
  });
}
