"""Tables of image files."""


def write_table(root, rows, head="path,label,group,mask,split"):
    table = root / "list.csv"
    table.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return table


ROWS = [
    *(f"images/{n}.png,0,p{n // 2},,train" for n in range(6)),
    "images/6.png,0,p6,,val",
    "images/7.png,0,p7,,test_site",
    '"images/9.png",1,p9,masks/9.png,test_site',
]
